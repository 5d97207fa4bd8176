//go:build linux

package torture

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

const component = "torture"

// clientEnv is the variable that makes a process a client.
const clientEnv = "TORTURE_CLIENT"

// Client configures a client process.
type Client struct {
	Number     int // no two of a history have the same
	Driver     string
	DSN        string
	Log        string
	Jobs       []Job
	Goroutines int
	Pool       int
	Seed       uint64
	Lose       int    // of so many statements one request and one reply is lost; 0: none
	Variant    string // "" for the library as it is
}

// A Job is a job that clients compete for. All state the same longest duration.
type Job struct {
	Name string
	Max  time.Duration // 0: the lock never expires
	// Ticks means that each of its runs has a tick.
	Ticks bool
}

// ttl returns Max as a TTL.
func (j Job) ttl() time.Duration {
	if j.Max == 0 {
		return lock.Forever
	}
	return j.Max
}

// Main runs a client if the process is one, and reports whether it was. Call it at the beginning
// of main.
func Main() bool {
	text := os.Getenv(clientEnv)
	if text == "" {
		return false
	}
	var c Client
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
	return true
}

// Run makes calls until its standard input ends, and writes a byte to its standard output for
// each operation.
func (c Client) Run(ctx context.Context) error {
	log, err := NewLog(c.Log, c.Number)
	if err != nil {
		return err
	}
	v, ok := variants[c.Variant]
	if !ok {
		return fmt.Errorf("there is no variant %q", c.Variant)
	}
	db, err := open(c.Driver, c.DSN, v.wording(c.Number), c.Lose)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(c.Pool)
	db.SetMaxIdleConns(c.Pool)
	log.progress = os.Stdout
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		io.Copy(io.Discard, os.Stdin)
	}()
	var all sync.WaitGroup
	for i := range c.Goroutines {
		w := &worker{Client: c, log: log, db: db, old: v.old, id: c.Number*1000 + i,
			ticks: map[string]int64{}, r: rand.New(rand.NewPCG(c.Seed, uint64(i)))}
		w.l, err = lock.NewWith(db, lock.Options{NoDDL: true, Observer: w.observe})
		if err != nil {
			return err
		}
		all.Go(func() {
			for ctx.Err() == nil {
				w.act()
			}
		})
	}
	all.Wait()
	return nil
}

// A worker is one goroutine of a client.
type worker struct {
	Client
	log *Log
	db  *sql.DB
	l   *lock.Lock
	old bool
	id  int
	r   *rand.Rand
	run int // the last job ID

	token atomic.Int64     // of the last acquisition
	ticks map[string]int64 // by the job, the last tick that is known to have been run
}

func (w *worker) observe(ctx context.Context, e lock.Event) {
	switch {
	case e.Operation == "Lock" || e.Operation == "Acquire":
		w.token.Store(e.Token)
	case e.Kind == lock.Lost:
		op := ctx.Value(callerKey{}).(caller).op
		ended := w.log.Begin(Op{Client: w.id, Kind: Ended, Job: op.Job, Owner: op.Owner, Max: op.Max,
			Lease: e.Token, Result: OK, Why: e.Err.Error()})
		w.log.End(ended)
	}
}

func (w *worker) act() {
	job := w.Jobs[w.r.IntN(len(w.Jobs))]
	n := w.r.IntN(100)
	if w.old && (n < 20 || n >= 94) {
		n = 50 // the old client has but four calls
	}
	switch {
	case n < 15, n >= 20 && n < 90 && job.Ticks && !w.old:
		w.lease(job)
	case n < 18:
		w.runJob(job)
	case n < 20:
		w.force(job)
	case n < 90:
		w.lock(job)
	case n < 94:
		kind := Enable
		if n < 91 {
			kind = Disable
		}
		w.call(Op{Kind: kind, Job: job.Name}, func(ctx context.Context, _ *Op) error {
			if w.old {
				return oldSet(w.db, job.Name, kind == Enable)
			}
			if kind == Enable {
				return w.l.EnableContext(ctx, component, job.Name)
			}
			return w.l.DisableContext(ctx, component, job.Name)
		})
	default:
		w.status(job)
	}
}

// callTimeout is longer than most faults, and shorter than some.
const callTimeout = 2500 * time.Millisecond

// call records a call. The context tells the wire for whom it works.
func (w *worker) call(o Op, do func(ctx context.Context, o *Op) error) *Op {
	o.Client = w.id
	op := w.log.Begin(o)
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), callerKey{},
		caller{log: w.log, op: *op}), callTimeout)
	defer cancel()
	w.end(op, do(ctx, op))
	return op
}

// end classifies the answer of a call.
func (w *worker) end(o *Op, err error) {
	var held *lock.ErrUnauthorised
	var already *lock.ErrAlreadyRun
	if errors.As(err, &held) {
		o.see(held.Holder())
	} else if errors.As(err, &already) {
		o.see(already.Last())
		o.Locked = already.Running()
		w.ticks[o.Job] = max(w.ticks[o.Job], o.Seen)
	}
	var disabled *lock.ErrDisabled
	switch {
	case err == nil:
		o.Result = OK
	case errors.Is(err, lock.ErrOutcomeUnknown), errors.As(err, new(lostCommit)):
		o.Result = Unknown
	case o.Kind == Acquire && late(err):
		o.Result = Unknown
	case errors.Is(err, lock.ErrLost):
		o.Result = Lost
	case held != nil:
		o.Result = Refused
	case already != nil:
		o.Result = AlreadyRun
	case errors.As(err, &disabled):
		o.Result = JobDisabled
	default:
		o.Result = Failed
	}
	if err != nil && held == nil && already == nil && disabled == nil {
		o.Why = err.Error()
	}
	w.log.End(o)
}

// see notes who is in the row.
func (o *Op) see(h lock.Holder) {
	o.LockTime, o.Age = h.LockTime.UnixMicro(), h.Age.Microseconds()
	switch tick, err := time.Parse(time.RFC3339, h.JobID); {
	case err == nil: // the IDs of a run, and what the library adds
		o.Holder, o.Seen = h.ComponentID[:strings.LastIndexByte(h.ComponentID, '/')], tick.Unix()
	case h.ComponentID != "":
		o.Holder = h.ComponentID + "/" + h.JobID
	}
}

// newRun returns an identity that was never used before.
func (w *worker) newRun() (componentID, jobID string) {
	w.run++
	return fmt.Sprintf("c%d", w.id), fmt.Sprint(w.run)
}

// insist repeats a call with the same IDs while its outcome is unknown, or gives up.
func (w *worker) insist(once func() *Op) *Op {
	o := once()
	for o.Result == Unknown && w.r.IntN(3) > 0 {
		o = once()
	}
	return o
}

func (w *worker) pause(most time.Duration) { time.Sleep(upTo(w.r, most)) }

func upTo(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most) + 1))
}

func (w *worker) lock(job Job) {
	cid, jid := w.newRun()
	o := w.insist(func() *Op {
		return w.call(Op{Kind: Lock, Job: job.Name, Owner: cid + "/" + jid, Max: job.Max.Microseconds()},
			func(ctx context.Context, o *Op) (err error) {
				if w.old {
					o.Token, err = oldLock(w.db, cid, job.Name, jid, job.Max)
					return err
				}
				err = w.l.LockContext(ctx, component, cid, job.Name, jid, job.Max)
				o.Token = w.token.Load()
				return err
			})
	})
	if o.Result != OK {
		return
	}
	w.pause(10 * time.Millisecond) // the job
	if w.r.IntN(8) == 0 && job.Max > 0 {
		return // it dies
	}
	w.insist(func() *Op {
		return w.call(Op{Kind: Unlock, Job: job.Name, Owner: cid + "/" + jid},
			func(ctx context.Context, _ *Op) error {
				if w.old {
					return oldUnlock(w.db, cid, job.Name, jid)
				}
				return w.l.UnlockContext(ctx, component, cid, job.Name, jid)
			})
	})
}

func (w *worker) status(job Job) {
	w.call(Op{Kind: Status, Job: job.Name}, func(ctx context.Context, o *Op) error {
		s, err := w.l.Status(ctx, component, job.Name)
		if err == nil {
			o.Enabled, o.Locked = s.Enabled, s.Locked
			o.see(s.Holder)
		}
		return err
	})
}

func (w *worker) force(job Job) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	s, err := w.l.Status(ctx, component, job.Name)
	// Of a lock that never expires somebody has to free it; of others it is the exception.
	if err != nil || !s.Locked || job.Max > 0 && w.r.IntN(2) > 0 {
		return
	}
	var of Op
	of.see(s.Holder)
	forced := Op{Kind: Force, Job: job.Name, Owner: of.Holder, Lease: of.LockTime}
	w.call(forced, func(ctx context.Context, _ *Op) error {
		return w.l.ForceRelease(ctx, component, job.Name, s.Holder)
	})
}

// A tenure is a lease, with the recorder of what is done with it.
type tenure struct {
	*worker
	job   Job
	owner string
	tick  int64
	lease *lock.Lease
}

func (t *tenure) op(k Kind) Op {
	return Op{Kind: k, Job: t.job.Name, Owner: t.owner, Max: t.job.Max.Microseconds(),
		Tick: t.tick, Lease: t.lease.Token()}
}

// acquiring returns what to ask Acquire or Run for, a context for it that lasts as long as the
// lease, and the record of the call.
func (w *worker) acquiring(job Job) (asked lock.Job, ctx context.Context,
	cancel context.CancelFunc, o *Op, token *atomic.Int64) {
	cid, jid := w.newRun()
	asked = lock.Job{ComponentName: component, JobName: job.Name, ComponentID: cid, JobID: jid,
		TTL: job.ttl()}
	var tick int64
	if job.Ticks {
		// two seconds apart: one that is given back leaves the second before it
		tick = 2 * (1 + max(0, w.ticks[job.Name]/2+w.r.Int64N(4)-1))
		asked.ComponentID, asked.JobID, asked.Tick = cid+"/"+jid, "", time.Unix(tick, 0)
	}
	o = w.log.Begin(Op{Client: w.id, Kind: Acquire, Job: job.Name, Owner: cid + "/" + jid,
		Max: job.Max.Microseconds(), Tick: tick})
	token = new(atomic.Int64)
	ctx, cancel = context.WithCancel(context.WithValue(context.Background(), callerKey{},
		caller{log: w.log, op: *o, token: token}))
	return asked, ctx, cancel, o, token
}

func (w *worker) lease(job Job) {
	asked, ctx, cancel, o, token := w.acquiring(job)
	defer cancel()
	timeout := time.AfterFunc(callTimeout, cancel)
	if w.r.IntN(8) == 0 {
		asked.Wait, asked.Poll = upTo(w.r, 100*time.Millisecond)+1, 20*time.Millisecond
	}
	lease, err := w.l.Acquire(ctx, asked)
	if err == nil {
		timeout.Stop()
		token.Store(lease.Token())
		o.Token = lease.Token()
	}
	w.end(o, err)
	if err != nil {
		w.givenBack(o, err)
		return
	}
	t := &tenure{w, job, o.Owner, o.Tick, lease}
	release, end := t.op(Release), lease.Release
	if job.Ticks && w.r.IntN(3) == 0 {
		release.Back, end = true, lease.GiveBack
	} else {
		t.work()
	}
	if w.r.IntN(5) == 0 && job.Max > 0 {
		return // it dies
	}
	w.insist(func() *Op {
		return w.call(release, func(ctx context.Context, _ *Op) error { return end(ctx) })
	})
}

// late reports whether a failed Acquire may have been granted too late, and given back.
func late(err error) bool {
	return errors.Is(err, lock.ErrLost) ||
		errors.Is(err, context.Canceled)
}

// givenBack records the release that is a part of an Acquire which was granted too late, or of
// which nobody knows whether a tick was granted: it may have been as early as the call.
func (w *worker) givenBack(acquire *Op, err error) {
	if late(err) || acquire.Tick != 0 && acquire.Result == Unknown {
		release := w.log.Begin(Op{Client: w.id, Kind: Release, Job: acquire.Job, Owner: acquire.Owner,
			Tick: acquire.Tick, Back: acquire.Tick != 0})
		release.Call, release.Since, release.Result = acquire.Call, acquire.Since, Unknown
		if errors.Is(err, lock.ErrLost) && !strings.Contains(err.Error(), "\n") {
			release.Result = OK // a release that fails is a second line
		}
		w.log.End(release)
	}
}

func (w *worker) runJob(job Job) {
	asked, ctx, cancel, o, token := w.acquiring(job)
	defer cancel()
	var release *Op
	err := w.l.Run(ctx, asked, func(ctx context.Context) error {
		lease := lock.LeaseFrom(ctx)
		token.Store(lease.Token())
		o.Token = lease.Token()
		w.end(o, nil)
		t := &tenure{w, job, o.Owner, o.Tick, lease}
		t.work()
		release = w.log.Begin(t.op(Release))
		return nil
	})
	switch {
	case release == nil:
		w.end(o, err)
		w.givenBack(o, err)
	case errors.Is(err, lock.ErrLost):
		release.Result = Unknown // it says more than one thing
		w.log.End(release)
	default:
		w.end(release, err)
	}
}

// work is the job: it writes, renews, and sometimes takes too long.
func (t *tenure) work() {
	for range t.r.IntN(8) {
		t.probe()
		switch t.r.IntN(4) {
		case 0:
			t.write()
		case 1, 2:
			t.call(t.op(Renewed), func(ctx context.Context, o *Op) error {
				// The wire records the statement for the lease, whose token it knows.
				ctx = context.WithValue(ctx, callerKey{}, caller{log: t.log, op: *o, token: tokenOf(t.lease)})
				return t.lease.Renew(ctx)
			})
		default:
			if t.r.IntN(4) == 0 {
				t.pause(min(t.job.Max, time.Second) * 3 / 2)
			}
			t.pause(10 * time.Millisecond)
		}
	}
}

// probe records that the lease is trusted.
func (t *tenure) probe() {
	o := t.op(Trust)
	o.Client = t.id
	noted := t.log.Begin(o)
	noted.Result = Failed
	if t.lease.Err() == nil {
		noted.Result = OK
	}
	t.log.End(noted)
}

func tokenOf(l *lock.Lease) *atomic.Int64 {
	var t atomic.Int64
	t.Store(l.Token())
	return &t
}

// lostCommit is the error of a commit with an unknown outcome.
type lostCommit struct{ error }

// write commits a row that only the holder may commit. The rows are in the order of the job's
// commits, since Check has locked the job's row before.
func (t *tenure) write() {
	t.call(t.op(Write), func(ctx context.Context, o *Op) error {
		tx, err := t.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := t.lease.Check(ctx, tx); err != nil {
			return fmt.Errorf("check: %s", err) // nothing was written, whatever it was
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO writes (job, token, op) VALUES ($1, $2, $3)",
			t.job.Name, t.lease.Token(), o.ID); err != nil {
			return err
		}
		t.pause(2 * time.Millisecond)
		if err := tx.Commit(); err != nil {
			if uncertain(err) {
				return lostCommit{err}
			}
			return err
		}
		return nil
	})
}
