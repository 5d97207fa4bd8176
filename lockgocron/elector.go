package lockgocron

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/cloudtrust/go-jobs/lock"
)

// ErrNotLeader is matched by the error of IsLeader while this instance doesn't lead.
var ErrNotLeader = errors.New("lockgocron: this instance is not the leader")

// Elector is a gocron.Elector, for gocron.WithDistributedElector. The instance that holds the
// lock leads, while it keeps its lease. Create it with [NewElector]. It is safe for concurrent
// use.
type Elector struct {
	lock   *lock.Lock
	job    lock.Job
	logger *slog.Logger
	resign context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	term context.Context // which has the lease; nil if there is none
	why  error           // why there is none
}

var _ gocron.Elector = (*Elector)(nil)

// NewElector starts to compete for the lock in the background, until [Elector.Close]. While
// another leads, it asks for the lock once in a Job.Poll, with ±50% jitter, so a dead leader is
// replaced after at most Job.TTL and a Poll; a Notifier of the Lock doesn't make it ask sooner.
// Each attempt ends after Job.TTL, so that a silent connection is replaced. A leader only renews
// its lease.
//
// The logger logs the beginning and the end of terms, and failures of the database; nil means
// slog.Default().
//
// The error says what is wrong with the Job. It must have a JobName and a TTL that ends (0 means
// a minute), and no JobID, Tick or Spacing. Its Wait is ignored.
func NewElector(l *lock.Lock, job lock.Job, logger *slog.Logger) (*Elector, error) {
	wrong := ""
	switch {
	case l == nil:
		wrong = "there is no Lock"
	case job.JobName == "":
		wrong = "the Job has no JobName"
	case job.TTL < 0:
		wrong = fmt.Sprintf("the Job's TTL, %v, is negative", job.TTL)
	case job.TTL == lock.Forever:
		wrong = "the Job's TTL is Forever: a leader that dies would not be replaced"
	case job.JobID != "" || !job.Tick.IsZero() || job.Spacing != 0:
		wrong = "the Job must have no JobID, Tick or Spacing: a leader's term is not a tick"
	case job.Poll < 0:
		wrong = fmt.Sprintf("the Job's Poll, %v, is negative", job.Poll)
	}
	if wrong != "" {
		return nil, errors.New("lockgocron: NewElector: " + wrong)
	}
	job.Wait = 0 // so that each failure is seen
	if job.Poll == 0 {
		job.Poll = time.Second
	}
	if job.TTL == 0 {
		job.TTL = time.Minute
	}
	if logger == nil {
		logger = slog.Default()
	}
	ctx, resign := context.WithCancel(context.Background())
	e := &Elector{lock: l, job: job, logger: logger.With("component", job.ComponentName, "job",
		job.JobName),
		resign: resign, done: make(chan struct{}), why: errors.New("it has not asked yet")}
	go e.run(ctx)
	return e, nil
}

func (e *Elector) run(ctx context.Context) {
	defer close(e.done)
	failing := false
	for ctx.Err() == nil {
		led, err := e.lead(ctx)
		e.lost(err)
		switch {
		case led:
			failing = false
			if err != nil {
				e.logger.Warn("this instance leads no more", "error", err)
			} else {
				e.logger.Info("this instance leads no more")
			}
		case errors.Is(err, lock.ErrRefused):
			failing = false
		case !failing && ctx.Err() == nil:
			e.logger.Error("there is no telling who leads", "error", err)
			failing = true
		}
		select {
		case <-time.After(e.job.Poll/2 + rand.N(e.job.Poll+1)):
		case <-ctx.Done():
		}
	}
}

// lead asks for the lock once, and leads while it can. It reports whether it has led.
func (e *Elector) lead(ctx context.Context) (led bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("there was no answer within %v", e.job.TTL)
	bound := time.AfterFunc(e.job.TTL, func() { cancel(silent) })
	defer bound.Stop()
	err = e.lock.Run(ctx, e.job, func(term context.Context) error {
		led = bound.Stop()
		if !led {
			return silent
		}
		e.set(term, nil)
		e.logger.Info("this instance leads")
		<-term.Done()
		return nil
	})
	if !led && context.Cause(ctx) == silent {
		err = fmt.Errorf("%w: %w", silent, err)
	}
	return led, err
}

// lost records that no term is held, and why.
func (e *Elector) lost(why error) {
	var none context.Context
	e.set(none, why)
}

func (e *Elector) set(term context.Context, why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term, e.why = term, why
}

// IsLeader returns nil while this instance leads. Otherwise its error matches [ErrNotLeader] and
// says why; an *lock.ErrUnauthorised in its chain names the leader. It asks no database: it
// compares the present time with the deadline of the lease. So it returns an error before another
// can lead, even in a process that was stopped and continues.
func (e *Elector) IsLeader(context.Context) error {
	_, err := e.leads()
	return err
}

func (e *Elector) leads() (term context.Context, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	why := e.why
	if e.term != nil {
		if why = lock.LeaseFrom(e.term).Err(); why == nil {
			return e.term, nil
		}
	}
	if why == nil {
		return nil, ErrNotLeader
	}
	return nil, fmt.Errorf("%w: %w", ErrNotLeader, why)
}

// Func returns a task for gocron.NewTask that calls f with a context that ends when this instance
// stops leading and when gocron shuts down. lock.LeaseFrom returns the lease of the term from it.
// f isn't called if the instance doesn't lead.
func (e *Elector) Func(f func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		term, err := e.leads()
		if err != nil {
			return err
		}
		return both(term, ctx, f)
	}
}

// Close stops competing. If this instance leads, Close releases the lock, so that another leads
// within a Poll. Shut down the scheduler first, so that no job is running. Close returns the
// error of the release, if any; a lock that could not be released expires. A second call does
// nothing.
func (e *Elector) Close() error {
	e.mu.Lock()
	led := e.term != nil
	e.mu.Unlock()
	e.resign()
	<-e.done
	e.mu.Lock()
	defer e.mu.Unlock()
	why := e.why
	e.why = errors.New("it is closed")
	if !led {
		return nil
	}
	return why
}
