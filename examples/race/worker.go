//go:build unix && !aix && !solaris

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
)

// workerVariable, when it is set in the environment, makes the program a worker.
const workerVariable = "RACE_WORKER"

const (
	jobName  = "checksums"
	askAgain = 50 * time.Millisecond
	breath   = time.Millisecond // in the rush, so that the lock changes hands more often
)

// Worker and parent talk in JSON over the worker's standard input and output: first one setup, then commands, each of which
// the worker answers with events, the last of them idle.
type setup struct {
	Driver, DSN         string // of the database
	Component, Instance string
	Max                 time.Duration
	Noop                bool
	Folder              string // where the journal, the witness, the counter and the manifests are
	Dir                 string // where the files are
	Files               []string
}

type command struct {
	Manifest string        // do the checksums, write them to the manifest of this name
	Pace     time.Duration // and take at least this long for them
	Insist   bool          // ask until the lock is granted or somebody else is
	Rush     time.Duration // for so long run, as often as possible, a job that adds 1 to the counter
}

type event struct {
	Instance   string
	Kind       kind
	Holder     string // to refusal: who holds the lock
	Done, Of   int    // to grant, progress, complete, timeout: how many files are in the manifest
	Runs, Asks int    // to rushed: runs and refusals; to gaveUp: refusals
	Late       int    // to rushed: how often the lock was granted so late that it was given back unused
	Problem    string // to failure
}

type kind string

const (
	ready    kind = "ready"
	grant    kind = "grant"
	refusal  kind = "refusal"
	progress kind = "progress" // a file is done
	complete kind = "complete" // all files are
	timeout  kind = "timeout"  // it stopped before its lock expires
	gaveUp   kind = "gave up"  // it insisted until somebody else got the lock
	rushed   kind = "rushed"
	idle     kind = "idle"
	failure  kind = "failure"
	gone     kind = "gone" // the process has ended; the parent says so
)

// A worker is one instance of the component.
type worker struct {
	setup
	locker interface {
		Lock(componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error
		Unlock(componentName, componentID, jobName, jobID string) error
	}
	journal journal
	witness witness
	out     *json.Encoder
	runs    int
}

// work is the main of a worker.
func work(in io.Reader, out io.Writer) error {
	w := worker{out: json.NewEncoder(out)}
	err := w.obeyAll(json.NewDecoder(in))
	if err != nil {
		w.out.Encode(event{Instance: w.Instance, Kind: failure, Problem: err.Error()}) // if this fails, nobody listens
	}
	return err
}

func (w *worker) obeyAll(in *json.Decoder) error {
	if err := in.Decode(&w.setup); err != nil {
		return err
	}
	db, err := sql.Open(w.Driver, w.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	if w.Noop {
		w.locker = &lock.NoopLocker{}
	} else {
		w.locker = lock.New(db)
	}
	if w.journal, err = openJournal(filepath.Join(w.Folder, "journal")); err != nil {
		return err
	}
	if w.witness, err = openWitness(filepath.Join(w.Folder, "witness")); err != nil {
		return err
	}
	for err = w.tell(event{Kind: ready}); err == nil; err = w.tell(event{Kind: idle}) {
		var c command
		if err := in.Decode(&c); err == io.EOF {
			return nil // the parent is done, or dead
		} else if err != nil {
			return err
		}
		if err := w.obey(c); err != nil {
			return err
		}
	}
	return err
}

func (w *worker) tell(e event) error {
	e.Instance = w.Instance
	return w.out.Encode(e)
}

func (w *worker) obey(c command) error {
	if c.Rush > 0 {
		return w.rush(c.Rush)
	}
	run, first := w.newRun(), ""
	for asks := 1; ; asks++ {
		asked := time.Now()
		r, err := w.ask(run)
		switch {
		case err != nil:
			return err
		case r == nil:
			late, err := w.holding(run, asked, func(ctx context.Context) error { return w.checksums(ctx, run, c) })
			if late && err == nil {
				err = w.tell(event{Kind: timeout, Of: len(w.Files)})
			}
			return err
		case first == "":
			first = r.Holder().JobID
			err = w.tell(event{Kind: refusal, Holder: r.Holder().ComponentID})
		case r.Holder().JobID != first:
			return w.tell(event{Kind: gaveUp, Holder: r.Holder().ComponentID, Asks: asks})
		}
		if err != nil || !c.Insist {
			return err
		}
		time.Sleep(askAgain)
	}
}

// newRun returns a job ID that nobody else uses: the lock is granted again to who comes with the IDs of its holder.
func (w *worker) newRun() string {
	w.runs++
	return fmt.Sprintf("run-%d-%d", os.Getpid(), w.runs)
}

// ask asks once for the lock. It returns the refusal, or nil if the lock was granted.
func (w *worker) ask(run string) (*lock.ErrUnauthorised, error) {
	err := w.locker.Lock(w.Component, w.Instance, jobName, run, w.Max)
	var r *lock.ErrUnauthorised
	if errors.As(err, &r) {
		return r, w.journal.write(w.Instance, run, refused, r.Holder().ComponentID)
	}
	return nil, err
}

// holding does the job, for which the lock was just granted, and unlocks.
//
// A lock can't stop a holder whose time is over. So the job gets a context that ends well before another can be granted
// the lock, reckoned from before we asked, since we don't know when the database decided; a job that is too late already
// is not begun.
func (w *worker) holding(run string, asked time.Time, job func(context.Context) error) (late bool, err error) {
	ctx, cancel := context.WithDeadline(context.Background(), asked.Add(w.Max*3/4))
	defer cancel()
	if late = ctx.Err() != nil; !late {
		err = w.witnessed(run, asked, func() error { return job(ctx) })
	}
	unlockErr := w.locker.Unlock(w.Component, w.Instance, jobName, run)
	if refusal := (*lock.ErrUnauthorised)(nil); errors.As(unlockErr, &refusal) {
		unlockErr = nil // so late that another has the lock; whether we worked until then is for the journal to say
	}
	return late, errors.Join(err, unlockErr)
}

// witnessed does the job and says so to the journal and the witness, all of it within the time of the lock.
func (w *worker) witnessed(run string, asked time.Time, job func() error) error {
	alone, err := w.witness.enter()
	if err != nil {
		return err
	}
	if err := w.journal.write(w.Instance, run, begin, strconv.FormatInt(asked.UnixMicro(), 10)); err != nil {
		return err
	}
	if !alone {
		if err := w.journal.write(w.Instance, run, clash, ""); err != nil {
			return err
		}
	}
	if err := job(); err != nil {
		return err
	}
	if err := w.journal.write(w.Instance, run, end, ""); err != nil {
		return err
	}
	return w.witness.leave()
}

// rush asks and runs for a while, nearly without a pause. The job adds 1 to a counter by reading and writing it, which loses
// counts if two do it at once.
func (w *worker) rush(length time.Duration) error {
	done := event{Kind: rushed}
	count := func(context.Context) error {
		done.Runs++
		return increment(filepath.Join(w.Folder, "counter"))
	}
	for began := time.Now(); time.Since(began) < length; {
		run, asked := w.newRun(), time.Now()
		r, err := w.ask(run)
		switch {
		case err != nil:
			return err
		case r != nil:
			done.Asks++
		default:
			late, err := w.holding(run, asked, count)
			if err != nil {
				return err
			}
			if late {
				done.Late++
			}
		}
		time.Sleep(breath)
	}
	return w.tell(done)
}

// increment writes in place, all digits at once: a file that is emptied first can keep its writer waiting for the disk.
func increment(path string) error {
	n, err := readCounter(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%020d", n+1)
	return errors.Join(err, f.Close())
}

func readCounter(path string) (int, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(content) == 0 {
		return 0, nil // nobody has counted yet
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(content))
}

// checksums is the job. It goes on where the manifest stops, so who takes over finishes what the dead holder began.
func (w *worker) checksums(ctx context.Context, run string, c command) error {
	path := filepath.Join(w.Folder, c.Manifest)
	have, err := readManifest(path)
	if err != nil {
		return err
	}
	manifest, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer manifest.Close()
	count := func(k kind) error { return w.tell(event{Kind: k, Done: len(have), Of: len(w.Files)}) }
	if err := count(grant); err != nil {
		return err
	}
	for _, name := range w.Files {
		if have[name] > 0 {
			continue
		}
		pause(ctx, c.Pace/time.Duration(len(w.Files)))
		sum := checksum(ctx, filepath.Join(w.Dir, name))
		if ctx.Err() != nil {
			return count(timeout)
		}
		if _, err := fmt.Fprintf(manifest, "%s %q\n", sum, name); err != nil {
			return err
		}
		if err := w.journal.write(w.Instance, run, step, ""); err != nil {
			return err
		}
		have[name]++
		if err := count(progress); err != nil {
			return err
		}
	}
	return count(complete)
}

// checksum returns the SHA-256 of a file in hex, or "unreadable". It stops when ctx is done.
func checksum(ctx context.Context, path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unreadable"
	}
	defer f.Close()
	h := sha256.New()
	for err == nil && ctx.Err() == nil {
		_, err = io.CopyN(h, f, 1<<20)
	}
	if err != io.EOF {
		return "unreadable"
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// readManifest returns how often each file is in a manifest.
func readManifest(path string) (map[string]int, error) {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	have := map[string]int{}
	for line := range bytes.Lines(content) {
		_, quoted, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		name, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("%s: the line %q: %w", filepath.Base(path), line, err)
		}
		have[name]++
	}
	return have, nil
}

// A witness is a file that one process at a time can lock with flock.
type witness struct{ f *os.File }

func openWitness(path string) (witness, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	return witness{f}, err
}

// enter doesn't wait. It returns false if another process is in.
func (w witness) enter() (alone bool, err error) {
	err = syscall.Flock(int(w.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func (w witness) leave() error { return syscall.Flock(int(w.f.Fd()), syscall.LOCK_UN) }
