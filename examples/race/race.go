//go:build unix && !aix && !solaris

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	rounds  = 3
	longest = 800 * time.Millisecond // that a round or the rush is drawn out to, so that a person can follow
	patient = 30 * time.Second       // that the parent waits for a sign of life
)

// errRefuted is the error of a race whose report says that the proof failed.
var errRefuted = errors.New("the proof failed")

// A race is the parent's side: it starts the workers, tells them what to do, and prints what they say they did.
type race struct {
	options
	setup   setup // what the workers get, each with its own Instance
	journal journal
	procs   map[string]*proc
	events  chan event // of all workers
	out     *printer
}

// A proc is a worker's process.
type proc struct {
	cmd      *exec.Cmd
	commands io.WriteCloser
	expected bool // its end is
}

func run(ctx context.Context, o options) (err error) {
	folder, err := os.MkdirTemp("", "race-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	r := race{options: o, procs: map[string]*proc{}, events: make(chan event), out: &printer{start: time.Now()}}
	if r.journal, err = openJournal(filepath.Join(folder, "journal")); err != nil {
		return err
	}
	r.setup = setup{Component: "race-" + strings.ToLower(rand.Text()[:10]), Max: o.max, Noop: o.noop, Folder: folder}
	if r.setup.Dir, r.setup.Files, err = files(o.dir, folder); err != nil {
		return err
	}
	driver, dsn, words, err := o.database(folder)
	if err != nil {
		return err
	}
	r.setup.Driver, r.setup.DSN = driver, dsn
	db, err := r.openDatabase(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", words, err)
	}
	defer func() { err = errors.Join(err, r.closeDatabase(db)) }()

	if o.noop {
		words = "nothing: NoopLocker lets everybody in"
	}
	fmt.Printf("%d processes compete for one job, the checksums of a folder (files: %d). Its lock is in %s.\n",
		o.instances, len(r.setup.Files), words)
	fmt.Printf("%d rounds; then the holder is killed at work; then a rush; then the proof that no two ran at once.\n\n", rounds)
	err = r.race(ctx)
	r.stop(err == nil)
	return r.report(err)
}

// openDatabase makes sure that the database can be had and the table is there before the workers come.
func (r *race) openDatabase(ctx context.Context) (*sql.DB, error) {
	db, err := sql.Open(r.setup.Driver, r.setup.DSN)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	lock.New(db)
	return db, nil
}

func (r *race) closeDatabase(db *sql.DB) error {
	_, err := db.Exec("DELETE FROM locks WHERE component_name = $1", r.setup.Component)
	return errors.Join(err, db.Close())
}

// files lists the plain files of dir, or makes some in a folder of its own.
func files(dir, folder string) (string, []string, error) {
	if dir == "" {
		dir = filepath.Join(folder, "files")
		if err := makeFiles(dir); err != nil {
			return "", nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, fmt.Errorf("-dir: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "", nil, fmt.Errorf("-dir: there are no files in %s", dir)
	}
	return dir, names, nil
}

func makeFiles(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	content := make([]byte, 256<<10)
	for i := range 8 {
		rand.Read(content)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i+1)), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// race goes through all rounds. It ends early, with errRefuted, when a round left an overlap in the journal.
func (r *race) race(ctx context.Context) error {
	for i := range r.instances {
		if err := r.start(ctx, fmt.Sprintf("instance-%d", i+1)); err != nil {
			return err
		}
	}
	pace := min(r.max*2/5, longest)
	for n := 1; n <= rounds; n++ {
		r.out.line(fmt.Sprintf("round %d", n), "all %d ask at once", len(r.procs))
		if _, err := r.round(ctx, command{Manifest: fmt.Sprintf("manifest-%d", n), Pace: pace}, false); err != nil {
			return err
		}
		if v, err := r.verdict(); err != nil {
			return err
		} else if len(v.overlaps) > 0 {
			return errRefuted
		}
	}
	if err := r.killAndTakeOver(ctx, pace); err != nil {
		return err
	}
	r.out.line("rush", "all %d ask every millisecond or so; the job adds 1 to a counter", len(r.procs))
	_, err := r.round(ctx, command{Rush: min(r.max, 2*longest)}, false)
	return err
}

// killAndTakeOver has a round whose holder is killed, and one of the others to go on with its work.
func (r *race) killAndTakeOver(ctx context.Context, pace time.Duration) error {
	c := command{Manifest: "manifest-kill", Pace: 2 * pace} // slow, so that the kill comes in time
	r.out.line("kill", "all %d ask at once; the holder is killed in the middle of its work", len(r.procs))
	victim, err := r.round(ctx, c, true)
	if err != nil {
		return err
	}
	if victim == "" {
		return errors.New("the holder was done before it could be killed: this machine is very busy, try again with a longer -max")
	}
	r.out.line("", "the others ask every %v until one is granted the lock", askAgain)
	c.Pace, c.Insist = pace, true
	if _, err := r.round(ctx, c, false); err != nil {
		return err
	}
	return r.start(ctx, victim)
}

// round gives all workers a command and prints what they do until all are idle again. With kill, the one that is granted
// the lock is killed in the middle of its work; round returns its name.
func (r *race) round(ctx context.Context, c command, kill bool) (victim string, err error) {
	busy := map[string]bool{}
	for name, p := range r.procs {
		busy[name] = true
		if err := json.NewEncoder(p.commands).Encode(c); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	for missing := len(busy); len(busy) > 0; { // answers
		e, err := r.next(ctx)
		if err != nil {
			return "", err
		}
		switch e.Kind {
		case grant, refusal:
			missing--
		case idle:
			delete(busy, e.Instance)
		case gone:
			if busy[e.Instance] {
				victim = e.Instance
			}
			delete(busy, e.Instance)
			if err := r.journal.write(e.Instance, "-", killed, ""); err != nil {
				return "", err
			}
		}
		r.out.event(e, missing == 0)
		if e.Kind == grant && kill {
			kill = false
			p := r.procs[e.Instance]
			p.expected = true
			time.AfterFunc(c.Pace/2, func() { p.cmd.Process.Kill() })
		}
	}
	r.out.endRound()
	return victim, nil
}

// next returns the next event of any worker. A worker's failure or unexpected end is an error.
func (r *race) next(ctx context.Context) (event, error) {
	select {
	case <-ctx.Done():
		return event{}, errors.New("interrupted")
	case <-time.After(r.max + patient):
		return event{}, fmt.Errorf("no worker has said anything for %v", r.max+patient)
	case e := <-r.events:
		if e.Kind == failure {
			return e, fmt.Errorf("%s: %s", e.Instance, e.Problem)
		}
		if e.Kind == gone {
			p := r.procs[e.Instance]
			delete(r.procs, e.Instance)
			if !p.expected {
				return e, fmt.Errorf("%s has ended by itself: %v", e.Instance, p.cmd.ProcessState)
			}
		}
		return e, nil
	}
}

// start starts a worker and waits until it is ready.
func (r *race) start(ctx context.Context, instance string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := &proc{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), workerVariable+"=1")
	p.cmd.Stderr = os.Stderr
	if p.commands, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	events, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	r.procs[instance] = p
	go func() {
		for in := json.NewDecoder(events); ; {
			var e event
			if in.Decode(&e) != nil { // at its end, or in the middle of what a killed process said
				break
			}
			r.events <- e
		}
		p.cmd.Wait() // how it ended is in cmd.ProcessState
		r.events <- event{Instance: instance, Kind: gone}
	}()
	mine := r.setup
	mine.Instance = instance
	if err := json.NewEncoder(p.commands).Encode(mine); err != nil {
		return err
	}
	_, err = r.next(ctx) // all others are idle: it is this one's ready
	return err
}

// stop ends all workers: friendly, by closing their input, or by force.
func (r *race) stop(friendly bool) {
	for _, p := range r.procs {
		if p.commands.Close(); !friendly {
			p.cmd.Process.Kill()
		}
	}
	for force := time.After(5 * time.Second); len(r.procs) > 0; {
		select {
		case e := <-r.events:
			if e.Kind == gone {
				if !friendly { // perhaps at work, which was not its fault
					r.journal.write(e.Instance, "-", killed, "")
				}
				delete(r.procs, e.Instance)
			}
		case <-force:
			friendly = false
			for _, p := range r.procs {
				p.cmd.Process.Kill()
			}
		}
	}
}

func (r *race) verdict() (verdict, error) {
	f, err := os.Open(filepath.Join(r.setup.Folder, "journal"))
	if err != nil {
		return verdict{}, err
	}
	defer f.Close()
	return check(f, r.max)
}

// report prints the proof of a race that ended with raceErr. It returns errRefuted if it fails. A race that could not be
// run to its end has no proof, but what speaks against the lock is reported all the same.
func (r *race) report(raceErr error) error {
	r.out.endProgress()
	v, err := r.verdict()
	if err != nil {
		return errors.Join(raceErr, err)
	}
	if raceErr != nil && len(v.overlaps) == 0 {
		return raceErr
	}
	files, twice, err := r.manifests()
	if err != nil {
		return errors.Join(raceErr, err)
	}
	counted, err := readCounter(filepath.Join(r.setup.Folder, "counter"))
	if err != nil {
		return errors.Join(raceErr, err)
	}
	if raceErr == nil && v.takeovers != 1 {
		v.others = append(v.others, fmt.Sprintf("%d takeovers, not 1", v.takeovers))
	}
	if raceErr == nil && counted != r.out.rushRuns {
		v.others = append(v.others, fmt.Sprintf("the counter is %d after %d runs", counted, r.out.rushRuns))
	}
	if twice > 0 {
		v.others = append(v.others, fmt.Sprintf("%d files were checksummed twice in a round", twice))
	}
	r.out.report(v, files, twice, counted, r.max)
	if len(v.overlaps)+len(v.others) > 0 && !errors.Is(raceErr, errRefuted) {
		raceErr = errors.Join(errRefuted, raceErr)
	}
	return raceErr
}

// manifests counts the files in all manifests, and those that are in one of them twice.
func (r *race) manifests() (done, twice int, err error) {
	names, err := fs.Glob(os.DirFS(r.setup.Folder), "manifest-*")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		have, err := readManifest(filepath.Join(r.setup.Folder, name))
		if err != nil {
			return 0, 0, err
		}
		for n := range maps.Values(have) {
			done++
			if n > 1 {
				twice++
			}
		}
	}
	return done, twice, nil
}

// sorted orders names so that instance-10 comes after instance-9.
func sorted(names []string) []string {
	return slices.SortedFunc(slices.Values(names), func(a, b string) int {
		return cmp.Or(len(a)-len(b), strings.Compare(a, b))
	})
}
