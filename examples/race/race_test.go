package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestRace(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "race")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(bin).CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{`is dead`, `takeover of instance-\d`, `The journal: \d+ runs, [1-9]`,
		`No two ran at once`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("it does not say %s", want)
		}
	}
	t.Logf("%s", out)
}

const lawful = `a 1 begin
a 1 step
a 1 end
b 2 begin
b 0 killed
c 3 takeover of b
c 3 end`

// TestCheck changes one thing in a correct journal.
func TestCheck(t *testing.T) {
	for _, test := range []struct{ name, old, new, says string }{
		{"lawful", "", "", ""},
		{"a begin within a run", "b 2 begin", "b 2 begin\na 4 begin", "a begins while b is at work"},
		{"a begin before an end", "a 1 end\nb 2 begin", "b 2 begin\na 1 end",
			"b begins while a is at work"},
		{"a step outside of a run", "a 1 end", "a 1 end\na 1 step",
			"a is at work with token 1 outside of its run"},
		{"a takeover from the living", "b 0 killed\n", "", "c takes over from b, which is not dead"},
		{"a token that repeats", "b 2 begin", "b 1 begin", "b has token 1, which is not after 1"},
		{"nonsense", "a 1 step", "a step", `"a step" is no line of a journal`},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := check(strings.NewReader(strings.Replace(lawful, test.old, test.new, 1)))
			got := strings.Join(v.wrong, "\n")
			if test.says == "" && got != "" || !strings.Contains(got, test.says) {
				t.Errorf("it says %q, not %q", got, test.says)
			}
		})
	}
}
