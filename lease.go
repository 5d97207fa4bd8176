package lock

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"time"
)

// Job is what a lease is asked for.
type Job struct {
	ComponentName string // the fleet
	JobName       string // what it does one at a time

	// ComponentID is the instance. "" means the host's name, the process ID and something random.
	ComponentID string
	// JobID is the run. "" means something random. Together with ComponentID it says whose the lock is: no two runs that may be
	// under way at once may have both in common, not even in one process.
	JobID string

	// MaxDuration is for how long the lock is granted; it is renewed every third of that. When the holder dies, it is also how
	// long the others have to wait. 0 means that the lock never expires. A negative one is an error.
	MaxDuration time.Duration
	// Margin is how long before the end of MaxDuration a lease counts as lost that could not be renewed. It has to cover what the
	// job needs to stop, and what the clocks of the database's servers differ by. 0 means a tenth of MaxDuration.
	Margin time.Duration

	// Wait is how long to wait for the lock while another holds it. 0 means not at all, a negative one as long as the context.
	Wait time.Duration
	// Poll is the time between two looks at a lock that is waited for. The first ones are shorter, each is random by half of it up and
	// down, and one is made when the holder's lock expires. So N waiters ask the database about N times in a Poll. 0 means a second.
	Poll time.Duration

	// Once says that JobID names a tick of a schedule, such as [Tick] makes it, of which only one instance may run it: Acquire
	// returns an *[ErrAlreadyRun] if the row shows that this tick or a later one is being run or has been, however long ago. A
	// tick whose run never ended, because its instance died, may be run again. The names of a job's ticks must be of one length and
	// sort like the ticks. Two runs of one tick with the same ComponentID are one holder: give each its own.
	Once bool
	// Spacing is the least time between two runs, for jobs whose ticks have no names: Acquire returns an *[ErrAlreadyRun] if
	// the last run's lock was taken, or last renewed, less than that ago.
	Spacing time.Duration

	// StopWhenDisabled says that the lease is lost when the job is disabled. Otherwise a run that has begun goes on.
	StopWhenDisabled bool
}

// Tick returns the name of a tick of a schedule for [Job.Once]: the time in UTC, to the second. All instances must round the
// time of a tick alike.
func Tick(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// check finds what is wrong with a Job, and fills in what it leaves out.
func (j Job) check() (Job, error) {
	for _, d := range []struct {
		what string
		d    time.Duration
	}{{"MaxDuration", j.MaxDuration}, {"Margin", j.Margin}, {"Poll", j.Poll}, {"Spacing", j.Spacing}} {
		if d.d < 0 {
			return j, fmt.Errorf("the Job.%s, %v, is negative", d.what, d.d)
		}
	}
	switch {
	case j.MaxDuration > 0 && j.Margin >= j.MaxDuration:
		return j, fmt.Errorf("the Job.Margin, %v, leaves nothing of Job.MaxDuration, %v", j.Margin, j.MaxDuration)
	case j.Once && j.JobID == "":
		return j, errors.New("a Job with Once needs a JobID, which names the tick")
	}
	if j.Margin == 0 {
		j.Margin = j.MaxDuration / 10
	}
	if j.Poll == 0 {
		j.Poll = time.Second
	}
	if j.ComponentID == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		j.ComponentID = fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
	}
	if j.JobID == "" {
		j.JobID = rand.Text()
	}
	return j, nil
}

// renewal is how often a lease is renewed that never expires: only to learn whether it was released by force.
const renewal = 10 * time.Second

// Lease is a lock that was acquired, and is kept. It is safe for concurrent use.
type Lease struct {
	l     *Lock
	job   Job
	token time.Time
	from  *Holder
	since time.Time // on our clock, before the lock was asked for

	ctx    context.Context
	cancel context.CancelCauseFunc
	kept   chan struct{} // closed when nothing renews the lease any more
	turn   chan struct{} // holds one value while a renewal or the release is under way

	mu       sync.Mutex
	lockTime time.Time   // as last written, as far as we know
	open     bool        // a renewal was sent, and we don't know whether it was carried out
	deadline time.Time   // until when, on our monotonic clock, nobody else can have taken over
	alarm    *time.Timer // at deadline; nil if there is none
	lost     error       // why and how the lease ended, other than by Release
	released bool
}

// Acquire takes the lock of a job, and keeps it by renewing it in the background until [Lease.Release] is called, ctx ends or
// the lease is lost. It waits for the lock if the Job says so.
//
// The error is an *[ErrUnauthorised] if another holds the lock, also at the end of [Job.Wait]; an *[ErrDisabled], for which
// Acquire never waits; an *[ErrAlreadyRun]; or it says what is wrong with the Job or with the database. While it waits, Acquire
// puts up with a database that is away.
//
// The renewals need a connection now and then, so the pool must have one more than the job uses. On SQLite they need to write: a
// transaction of the job's that writes must be shorter than MaxDuration there.
//
// A lease can't be had from the Storage of a transaction.
func (l *Lock) Acquire(ctx context.Context, job Job) (*Lease, error) {
	id := identity{"Acquire", job.ComponentName, job.ComponentID, job.JobName, job.JobID}
	anonymous := job.JobID == "" || job.ComponentID == ""
	job, err := job.check()
	if err != nil {
		return nil, id.fail(err)
	}
	id.componentID, id.jobID = job.ComponentID, job.JobID
	if err := l.begin(ctx, id); err != nil {
		return nil, err
	}
	if db, ok := l.rows.(*database); ok && db.transaction {
		return nil, id.fail(errors.New("a lease needs a Storage that is not a transaction"))
	}
	c := claim{longest: job.MaxDuration, once: job.Once, spacing: job.Spacing}
	asked := time.Now()
	for w := newWaiting(job); ; {
		start := time.Now()
		r, event := l.ask(ctx, id, c)
		if event.Err != nil && w.wait(ctx, event.Err) {
			continue // what it is told while it waits is no news
		}
		if err := ctx.Err(); err != nil && event.Err != nil && !errors.Is(event.Err, err) {
			event.Err = id.fail(fmt.Errorf("%w while waiting: %w", err, event.Err))
		}
		event.Took = time.Since(asked)
		l.tell(ctx, id, event)
		if event.Err != nil {
			if anonymous && errors.Is(event.Err, ErrOutcomeUnknown) {
				// Nobody else knows the IDs.
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
				defer cancel()
				l.rows.free(ctx, id, term{})
			}
			return nil, event.Err
		}
		return l.hold(ctx, id, job, r, start)
	}
}

// hold makes a Lease of a lock that was asked for at start and granted.
func (l *Lock) hold(ctx context.Context, id identity, job Job, r reading, start time.Time) (*Lease, error) {
	le := &Lease{l: l, job: job, from: r.from, token: r.lockTime, lockTime: r.lockTime, since: start,
		kept: make(chan struct{}), turn: make(chan struct{}, 1)}
	le.ctx, le.cancel = context.WithCancelCause(ctx)
	interval := renewal
	if job.MaxDuration > 0 {
		// A lock that this identity has held before may be some way into its time already.
		if age := r.now.Sub(r.lockTime); age > 0 {
			start = start.Add(-age)
		}
		le.deadline = start.Add(job.MaxDuration - job.Margin)
		if !time.Now().Before(le.deadline) {
			close(le.kept)
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
			defer cancel()
			err := le.Release(ctx)
			return nil, id.fail(errors.Join(fmt.Errorf("%w: the answer came too late, after %v", ErrLost, time.Since(le.since)), err))
		}
		le.mu.Lock()
		le.alarm = time.AfterFunc(time.Until(le.deadline), le.expire)
		le.mu.Unlock()
		interval = job.MaxDuration / 3
	}
	go le.keep(interval, start)
	return le, nil
}

// Context ends when the lease is lost, when it is released, and when the context given to Acquire ends. When it is lost,
// [context.Cause] matches [ErrLost]; that is before another can hold the lock, by [Job.Margin], unless it was taken away by
// force. It holds for a process that was stopped, too: it ends as soon as the process goes on.
func (le *Lease) Context() context.Context { return le.ctx }

// Token is the fencing token of the lease: it is larger than that of every lease of the job before it, and stays when the
// lease is renewed. It is the lock_time of the acquisition in microseconds since 1970.
func (le *Lease) Token() int64 { return le.token.UnixMicro() }

// TakenFrom returns the holder whose expired lock this lease has taken over: there may be work that it has left half done. It
// is nil if the lock was free, and if the reply that said so was lost.
func (le *Lease) TakenFrom() *Holder { return le.from }

// Job is what Acquire was asked for, with what it left out filled in.
func (le *Lease) Job() Job { return le.job }

func (le *Lease) identity(verb string) identity {
	return identity{verb, le.job.ComponentName, le.job.ComponentID, le.job.JobName, le.job.JobID}
}

// term returns in what range the row's lock_time is if this lease still holds the lock. A renewal whose reply was lost may
// have moved it, by no more than the lock's whole time; a later renewal settles it.
func (le *Lease) term() (term, error) {
	le.mu.Lock()
	defer le.mu.Unlock()
	t := term{le.lockTime, le.lockTime}
	if le.open {
		longest := le.job.MaxDuration
		if longest == 0 {
			longest = 100 * 365 * 24 * time.Hour
		}
		t.last = t.first.Add(longest)
	}
	return t, le.lost
}

// keep renews the lease until it ends, for the first time an interval after start.
func (le *Lease) keep(interval time.Duration, start time.Time) {
	defer close(le.kept)
	timer := time.NewTimer(time.Until(start.Add(interval)))
	defer timer.Stop()
	for {
		select {
		case <-le.ctx.Done():
			le.silence()
			return
		case <-timer.C:
		}
		start, patience := time.Now(), interval
		if le.alarm != nil {
			patience = time.Until(le.until()) * 2 / 3 // one that hangs leaves time for another
		}
		ctx, cancel := context.WithTimeout(le.ctx, patience)
		next := interval / 8 // there is time for more than one more
		if le.Renew(ctx) == nil {
			next = time.Until(start.Add(interval))
		}
		cancel()
		timer.Reset(next)
	}
}

// silence stops the alarm.
func (le *Lease) silence() {
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.alarm != nil {
		le.alarm.Stop()
	}
}

// expire ends the lease at its deadline, unless that has been put off meanwhile.
func (le *Lease) expire() {
	le.mu.Lock()
	if left := time.Until(le.deadline); left > 0 {
		le.alarm.Reset(left)
		le.mu.Unlock()
		return
	}
	le.mu.Unlock()
	le.lose(fmt.Errorf("%w: it could not be renewed in time", ErrLost))
}

// lose ends the lease, unless it has ended.
func (le *Lease) lose(why error) {
	le.mu.Lock()
	ended := le.released || le.lost != nil || le.ctx.Err() != nil
	if le.lost == nil && !le.released {
		le.lost = why
	}
	le.mu.Unlock()
	le.cancel(why)
	if !ended {
		event := le.event(Lost)
		event.Err = why
		le.l.tell(context.WithoutCancel(le.ctx), le.identity("Renew"), event)
	}
}

// event begins what the observer is told of the lease.
func (le *Lease) event(kind EventKind) Event {
	return Event{Kind: kind, Token: le.Token(), MaxDuration: le.job.MaxDuration, Held: time.Since(le.since)}
}

// enter waits for the renewal that is under way, if any.
func (le *Lease) enter(ctx context.Context) error {
	select {
	case le.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (le *Lease) leave() { <-le.turn }

// Renew renews the lease now; its time begins anew. Nobody has to call it: that is done in the background. An error that
// matches [ErrLost] is final. After another the lease may still be renewed until its time is up.
func (le *Lease) Renew(ctx context.Context) error {
	id := le.identity("Renew")
	if err := le.enter(ctx); err != nil {
		return id.fail(err)
	}
	defer le.leave()
	if err := le.ctx.Err(); err != nil {
		return id.fail(context.Cause(le.ctx))
	}
	t, lost := le.term()
	if lost != nil {
		return id.fail(lost)
	}
	if le.alarm != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, le.until())
		defer cancel()
	}
	le.mu.Lock()
	wasOpen := le.open
	le.open = true
	le.mu.Unlock()

	start := time.Now()
	r, err := le.l.rows.renew(ctx, id, t, le.job.MaxDuration)
	event := le.event(Renewed)
	event.Took, event.Err = time.Since(start), err
	if err != nil {
		if !errors.Is(err, ErrOutcomeUnknown) {
			le.mu.Lock()
			le.open = wasOpen
			le.mu.Unlock()
		}
		event.Kind = Failed
	} else if err = le.settle(r, start); err != nil {
		le.lose(err)
		return id.fail(err)
	}
	if err == nil || le.ctx.Err() == nil { // one that the release has cut short is no news
		le.l.tell(ctx, id, event)
	}
	return err
}

// settle makes what it can of the answer to a renewal sent at start: the lease goes on, or the error says how it is lost.
func (le *Lease) settle(r reading, start time.Time) error {
	le.mu.Lock()
	le.open = false
	lost := le.lost
	if r.won {
		le.lockTime = r.lockTime
		if le.alarm != nil {
			le.deadline = start.Add(le.job.MaxDuration - le.job.Margin)
		}
	}
	le.mu.Unlock()
	switch {
	case r.won && lost != nil:
		return lost // too late
	case r.won:
		if le.job.StopWhenDisabled && r.disabled {
			return fmt.Errorf("%w: %w", ErrLost, &ErrDisabled{id: le.identity("Renew")})
		}
		return nil
	case r.locked && r.heldBy(le.identity("")) && r.expired(le.job.MaxDuration):
		return fmt.Errorf("%w: it has expired", ErrLost)
	}
	return lostTo(le.identity("Renew"), r)
}

// lostTo says who has the lock of a lease that is not in the row any more.
func lostTo(id identity, r reading) error {
	if r.locked {
		return fmt.Errorf("%w: %w", ErrLost, &ErrUnauthorised{id: id, holder: r.holder()})
	}
	return fmt.Errorf("%w: it was released by another", ErrLost)
}

func (le *Lease) until() time.Time {
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.deadline
}

// Release gives the lock back and ends the lease's context. It returns nil if the lock is released, also for the second time.
// If the lease has been lost to another, the error matches [ErrLost], and nothing is taken from the other.
func (le *Lease) Release(ctx context.Context) error {
	id := le.identity("Release")
	le.cancel(nil)
	// What is under way must not come after the release; it has been cancelled.
	select {
	case <-le.kept:
	case <-ctx.Done():
	}
	if err := le.enter(ctx); err != nil {
		return id.fail(err)
	}
	defer le.leave()
	le.mu.Lock()
	released := le.released
	le.mu.Unlock()
	if released {
		return nil
	}
	t, lost := le.term()
	start := time.Now()
	r, err := le.l.rows.free(ctx, id, t)
	event := le.event(Released)
	event.Took = time.Since(start)
	switch {
	case err != nil:
		event.Kind = Failed
	case r.won, !r.locked && r.componentID == id.componentID && r.jobID == id.jobID && lost == nil:
		le.mu.Lock()
		le.released = true
		le.mu.Unlock()
	default:
		err = id.fail(lostTo(id, r))
		event.Kind = Refused
		if r.locked {
			event.Holder = r.holder()
		}
	}
	event.Err = err
	le.l.tell(ctx, id, event)
	return err
}

// Transaction is what [Lease.Check] needs of a transaction: *sql.Tx is one.
type Transaction interface {
	QueryRowContext(ctx context.Context, query string, args ...interface{}) *sql.Row
}

// Check makes sure, within the transaction in which the job writes its results, that this lease holds the lock and goes on
// holding it until the transaction ends: it locks the row. The transaction of a job that has lost its lock can't commit then, even
// if the job doesn't know yet. tx must be a transaction of the same database; the error matches [ErrLost] if the lease doesn't hold the
// lock any more, and the transaction must be rolled back then, as after any other error.
//
// Until the transaction ends, the lease can't be renewed, nor another take over: call Check at its end, just before Commit. At
// the isolation levels REPEATABLE READ and SERIALIZABLE it may fail with a serialization error, like any statement; then
// repeat the transaction.
func (le *Lease) Check(ctx context.Context, tx Transaction) error {
	id := le.identity("Check")
	db, ok := le.l.rows.(*database)
	if !ok {
		return id.fail(errors.New("there is no database"))
	}
	if absent(tx) {
		return id.fail(errors.New("there is no transaction: it is nil"))
	}
	// What can begin a transaction is none, unless it can end one, too. The signatures of those that wrap *sql.DB differ.
	if _, begins := reflect.TypeOf(tx).MethodByName("BeginTx"); begins && !isTransaction(tx) {
		return id.fail(fmt.Errorf("a %T is not a transaction: nothing would be locked", tx))
	}
	for {
		t, lost := le.term()
		if lost != nil {
			return id.fail(lost)
		}
		var held bool
		err := tx.QueryRowContext(ctx, db.dialect.Load().check, id.args(sinceEpoch(t.first), sinceEpoch(t.last))...).Scan(&held)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, sql.ErrNoRows):
			return id.fail(err)
		}
		// A renewal may have moved the lock_time between the two.
		if now, _ := le.term(); now == t {
			return id.fail(fmt.Errorf("%w: the row is not this lease's any more", ErrLost))
		}
	}
}
