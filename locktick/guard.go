package locktick

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// Guard says which lock guards the ticks of one job. The zero Guard runs nothing: every [Result] is [Failed] then, and says
// why. A Guard is safe for concurrent use if its Report and Now are.
type Guard struct {
	// Lock is where the lock is. Where there is no database, use lock.NewLocal(nil).
	Lock *lock.Lock

	// Job is what the lock is asked for with each tick. JobName must be set, and belong to this job alone. JobID must be "": it
	// is the name of the tick. Once goes without saying. To ComponentID, unless it is "", something random is added for each run, so that
	// an instance that fires a tick twice is refused like any other.
	//
	// MaxDuration says how soon a dead holder is replaced, and not how long a run may take: the lock is kept while it runs.
	Job lock.Job

	// Report, unless nil, is told what has become of each tick before the call returns, from several goroutines at once. Nil means
	// slog.Default(): errors as errors, Held and Disabled as warnings, what went well for debugging.
	Report func(ctx context.Context, r Result)

	// Now is the clock of this instance. Nil means time.Now. It decides when [Guard.Loop] fires and, with a schedule, which tick
	// it is that fires.
	Now func() time.Time
}

// Outcome is what has become of a tick on this instance.
type Outcome string

const (
	Ran        Outcome = "ran"         // here; Result.Err is what the job has returned, or what went wrong with its lock
	AlreadyRun Outcome = "already run" // or being run, or a later one is, or Spacing has not passed: an *lock.ErrAlreadyRun
	Held       Outcome = "held"        // a run that began earlier has not ended: an *lock.ErrUnauthorised
	Disabled   Outcome = "disabled"    // an *lock.ErrDisabled
	Failed     Outcome = "failed"      // not run here, and whether elsewhere is unknown: Result.Err says why
)

// Result is what has become of a tick on this instance, and why.
type Result struct {
	ComponentName string
	JobName       string
	Tick          time.Time // its scheduled time; zero where runs are kept apart by Spacing
	Outcome       Outcome
	// Err is nil if the job has run and all went well. With the Outcomes AlreadyRun, Held and Disabled it is the refusal, unwrapped.
	Err error
}

// Holder returns who runs or has run the job, or holds its lock, if the Outcome is AlreadyRun or Held.
func (r Result) Holder() (holder lock.Holder, ok bool) {
	switch err := r.Err.(type) {
	case *lock.ErrAlreadyRun:
		return err.Last(), true
	case *lock.ErrUnauthorised:
		return err.Holder(), true
	}
	return lock.Holder{}, false
}

// Run calls f if this instance gets the lock for the tick, keeps the lock while f runs, and releases it. tick is the scheduled
// time of the tick, to the second; the zero time means that ticks have no names and that Job.Spacing keeps the runs apart.
//
// The context that f gets ends when ctx does and when the lease is lost; f must return then. [lock.LeaseFrom] gives its lease.
// If f panics, the lock is released, nothing is reported, and the panic goes on.
func (g Guard) Run(ctx context.Context, tick time.Time, f func(ctx context.Context) error) Result {
	r := Result{ComponentName: g.Job.ComponentName, JobName: g.Job.JobName, Tick: tick}
	r.Outcome, r.Err = g.run(ctx, tick, f)
	g.Tell(ctx, r)
	return r
}

func (g Guard) run(ctx context.Context, tick time.Time, f func(ctx context.Context) error) (Outcome, error) {
	job, err := g.job(tick)
	if err != nil {
		return Failed, err
	}
	ran := false
	err = g.Lock.Run(ctx, job, func(ctx context.Context) error {
		ran = true
		return f(ctx)
	})
	if ran {
		return Ran, err
	}
	switch err.(type) {
	case *lock.ErrAlreadyRun:
		return AlreadyRun, err
	case *lock.ErrUnauthorised:
		return Held, err
	case *lock.ErrDisabled:
		return Disabled, err
	}
	if job.ComponentID != "" && errors.Is(err, lock.ErrOutcomeUnknown) {
		// If the lock was granted, nobody else knows that it is ours: it would keep the next ticks out until it expires. Acquire itself
		// sees to it where it has made up the ComponentID.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if unlock := g.Lock.UnlockContext(ctx, job.ComponentName, job.ComponentID, job.JobName, job.JobID); unlock != nil {
			err = errors.Join(err, unlock)
		}
	}
	return Failed, err
}

// Check says what is wrong with the Guard, if anything is that shows before the first tick. named says whether its ticks will have
// names, or Job.Spacing has to keep the runs apart.
func (g Guard) Check(named bool) error {
	switch {
	case g.Lock == nil:
		return errors.New("locktick: the Guard has no Lock")
	case g.Job.JobName == "":
		return errors.New("locktick: the Guard's Job has no JobName")
	case g.Job.JobID != "":
		return fmt.Errorf("locktick: job %q: the Guard's Job has the JobID %q, which is where the name of each tick goes",
			g.Job.JobName, g.Job.JobID)
	case !named && g.Job.Spacing <= 0:
		return fmt.Errorf("locktick: job %q: its ticks have no names in common, and the Guard's Job has no Spacing to keep runs apart",
			g.Job.JobName)
	}
	return nil
}

// job returns what the lock is to be asked for.
func (g Guard) job(tick time.Time) (lock.Job, error) {
	named := !tick.IsZero()
	if err := g.Check(named); err != nil {
		return lock.Job{}, err
	}
	job := g.Job
	if job.ComponentID != "" {
		job.ComponentID += "/" + rand.Text()[:8]
	}
	job.Once = named
	if named {
		if tick.Nanosecond() != 0 {
			return lock.Job{}, fmt.Errorf("locktick: job %q: the tick %v is not a whole second: "+
				"a tick has to be its scheduled time, and not a reading of the clock", job.JobName, tick.Round(0))
		}
		job.JobID = lock.Tick(tick)
	}
	return job, nil
}

// Tell hands r to Report, or to the default logger. It is for adapters, which learn of what [Guard.Run] never saw.
func (g Guard) Tell(ctx context.Context, r Result) {
	if g.Report != nil {
		g.Report(ctx, r)
		return
	}
	level := slog.LevelDebug
	switch {
	case r.Outcome == Failed, r.Outcome == Ran && r.Err != nil:
		level = slog.LevelError
	case r.Outcome == Held, r.Outcome == Disabled:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("component", r.ComponentName), slog.String("job", r.JobName)}
	if !r.Tick.IsZero() {
		attrs = append(attrs, slog.Time("tick", r.Tick.UTC()))
	}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	slog.Default().LogAttrs(ctx, level, "tick "+string(r.Outcome), attrs...)
}

func (g Guard) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}
