//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestProgram builds the program and runs it as a person does.
func TestProgram(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "race")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	tests := []struct {
		name   string
		args   []string
		status int
		want   []string // regular expressions
		never  string
	}{
		{name: "the lock holds", want: []string{
			`(?m)^no two ran at once$`,
			`killed with SIGKILL`,
			`takes over from instance-\d, with [1-7] of 8 files done`,
			`(?m)^ +1  takeover from a killed holder, [2-9]\.`,
			`(?m)^ +32  files in the manifests, 0 of them twice`,
			`(?m)^ +0  times the witness`,
			`(?m)^ +0  overlaps`,
		}},
		{name: "no lock", args: []string{"-noop", "-instances", "3"}, status: 1, want: []string{
			`(?m)^TWO RAN AT ONCE$`, `(?m)^ +[1-9]\d*  times the witness`, `(?m)^ +[1-9]\d*  overlaps`,
		}, never: "no two ran at once\n$"},
		{name: "help", args: []string{"-h"}, want: []string{`-instances N`}},
		{name: "too few", args: []string{"-instances", "1"}, status: 2, want: []string{`2 to 64`}},
		{name: "too short", args: []string{"-max", "1ms"}, status: 2, want: []string{`1s or more`}},
		{name: "no folder", args: []string{"-dir", filepath.Join(t.TempDir(), "missing")}, status: 2, want: []string{`-dir: .*no such file`}},
		{name: "no files", args: []string{"-dir", t.TempDir()}, status: 2, want: []string{`-dir: there are no files in`}},
		{name: "no database", args: []string{"-db", "postgres://me:hidden@127.0.0.1:1/x?sslmode=disable"}, status: 2,
			want: []string{`postgres://me:xxxxx@127.0.0.1:1/x: .*connect`}, never: "hidden"},
		{name: "no URL", args: []string{"-db", "postgres://me:hid#den@127.0.0.1:1/x"}, status: 2,
			want: []string{`-db is not a URL`}, never: "hid#?|den"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := exec.Command(bin, test.args...).CombinedOutput()
			status := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				status = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			for _, want := range test.want {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("the output has nothing like %s", want)
				}
			}
			if test.never != "" && regexp.MustCompile(test.never).Match(out) {
				t.Errorf("the output has %s", test.never)
			}
			if t.Failed() {
				t.Logf("the output:\n%s", out)
			}
		})
	}
}

// Two runs one after the other, a refusal, and the takeover of the second one's lock. Times are in microseconds.
const sound = `
1000100 a r1 begin 1000000
1000150 b r2 refused a
1000200 a r1 step
1000300 a r1 end
1000400 b r2 begin 1000350
1000500 b r2 step
1000600 b - killed
3000450 a r3 begin 3000440
3000500 a r3 end
`

func TestCheckSound(t *testing.T) {
	v, err := check(strings.NewReader(strings.TrimSpace(sound)), 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.overlaps) > 0 || len(v.others) > 0 {
		t.Errorf("found %q and %q in a sound journal", v.overlaps, v.others)
	}
	if v.runs != 3 || v.refusals != 1 || v.takeovers != 1 || v.handovers != 2 || v.waited != 2000100*time.Microsecond {
		t.Errorf("counted %+v", v)
	}
}

// Each of these is the sound journal with one change, which has to be found.
func TestCheckFinds(t *testing.T) {
	tests := []struct {
		name, old, new string
		overlap, other string
	}{
		{name: "a begin within another run",
			old: "1000150 b r2 refused a", new: "1000150 c r9 begin 1000140\n1000151 c r9 end",
			overlap: "c began run r9 while a was at work in run r1"},
		{name: "a begin before the end, by clocks that hide it",
			old: "1000300 a r1 end\n1000400 b r2 begin 1000350", new: "1000400 b r2 begin 1000350\n1000300 a r1 end",
			overlap: "b began run r2 while a was at work in run r1"},
		{name: "two runs of one instance",
			old: "1000150 b r2 refused a", new: "1000150 a r9 begin 1000140\n1000151 a r9 end",
			overlap: "a began run r9 while a was at work in run r1"},
		{name: "work after the end",
			old: "1000500 b r2 step", new: "1000500 b r2 step\n1000501 a r1 step",
			overlap: "a worked outside its run r1 (step)"},
		{name: "an end without a begin",
			old: "1000400 b r2 begin 1000350\n1000500 b r2 step\n1000600 b - killed\n", new: "1000400 b r2 end\n",
			overlap: "b worked outside its run r2 (end)"},
		{name: "a takeover before the holder is dead",
			old: "1000600 b - killed\n3000450 a r3 begin 3000440", new: "3000450 a r3 begin 3000440\n3000460 b - killed",
			overlap: "a began run r3 while b was at work in run r2"},
		{name: "a takeover before the time is over",
			old: "3000450", new: "2900450",
			other: "a took over after 1.9001s, which is before the holder's time of 2s was over"},
		{name: "a second process with the witness",
			old: "1000500 b r2 step", new: "1000500 b r2 clash",
			overlap: "b worked in run r2 while another process held the witness"},
		{name: "a run that doesn't end",
			old: "\n3000500 a r3 end", new: "",
			other: "a never ended its run r3"},
		{name: "a refusal without a holder",
			old: "refused a", new: "refused",
			other: "b was refused in favour of nobody"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := strings.Replace(strings.TrimSpace(sound), test.old, test.new, 1)
			v, err := check(strings.NewReader(text), 2*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(v.overlaps, "; "); got != test.overlap {
				t.Errorf("overlaps %q, want %q", got, test.overlap)
			}
			if got := strings.Join(v.others, "; "); got != test.other {
				t.Errorf("other findings %q, want %q", got, test.other)
			}
		})
	}
}

func TestCheckRefusesNonsense(t *testing.T) {
	for _, line := range []string{"nonsense", "x a r1 end", "1 a r1 begin soon", "1 a r1 dance"} {
		if _, err := check(strings.NewReader(line), time.Second); err == nil {
			t.Errorf("took %q for a line of a journal", line)
		}
	}
}

func TestWitnessLetsOneIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness")
	a, err := openWitness(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openWitness(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		who   witness
		alone bool
	}{{a, true}, {b, false}, {b, false}} {
		if alone, err := step.who.enter(); err != nil || alone != step.alone {
			t.Errorf("alone: %v (%v), want %v", alone, err, step.alone)
		}
	}
	if err := a.leave(); err != nil {
		t.Fatal(err)
	}
	if alone, err := b.enter(); err != nil || !alone {
		t.Errorf("alone after the other left: %v (%v)", alone, err)
	}
}
