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

// ErrNotLeader is in the chain of the error of IsLeader while this instance doesn't lead.
var ErrNotLeader = errors.New("lockgocron: this instance is not the leader")

// Elector is a gocron.Elector, for gocron.WithDistributedElector: the instance leads that holds the lock, as long as it keeps
// its lease. Make it with [NewElector]. It is safe for concurrent use.
type Elector struct {
	lock   *lock.Lock
	job    lock.Job
	logger *slog.Logger
	resign context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	term context.Context // of the lease; nil before the first
	why  error           // why there is none, or how the last one ended
}

var _ gocron.Elector = (*Elector)(nil)

// NewElector begins to run for leader in the background, until [Elector.Close]. While another leads it asks once in a Job.Poll, at random
// up to half of it sooner or later, so that a leader that dies is replaced after Job.TTL and a Poll at most. A leader asks
// for nothing but the renewals of its lease.
//
// The logger is told of terms that begin and end, and of a database that fails; nil means slog.Default().
//
// The error is about the Job: it must have a JobName and a MaxDuration, and no JobID, Once or Spacing. Its Wait doesn't matter.
func NewElector(l *lock.Lock, job lock.Job, logger *slog.Logger) (*Elector, error) {
	switch {
	case l == nil:
		return nil, errors.New("lockgocron: NewElector: there is no Lock")
	case job.JobName == "":
		return nil, errors.New("lockgocron: NewElector: the Job has no JobName")
	case job.MaxDuration <= 0:
		return nil, fmt.Errorf("lockgocron: NewElector: the Job's MaxDuration is %v: a leader that dies would not be replaced", job.MaxDuration)
	case job.JobID != "" || job.Once || job.Spacing != 0:
		return nil, errors.New("lockgocron: NewElector: the Job must have no JobID, Once or Spacing: a leader's term is not a tick")
	case job.Poll < 0:
		return nil, fmt.Errorf("lockgocron: NewElector: the Job's Poll, %v, is negative", job.Poll)
	}
	job.Wait = 0 // so that each failure is seen
	if job.Poll == 0 {
		job.Poll = time.Second
	}
	if logger == nil {
		logger = slog.Default()
	}
	ctx, resign := context.WithCancel(context.Background())
	e := &Elector{lock: l, job: job, logger: logger.With("component", job.ComponentName, "job", job.JobName),
		resign: resign, done: make(chan struct{}), why: errors.New("it has not asked yet")}
	go e.run(ctx)
	return e, nil
}

func (e *Elector) run(ctx context.Context) {
	defer close(e.done)
	failing := false
	for ctx.Err() == nil {
		led := false
		err := e.lock.Run(ctx, e.job, func(term context.Context) error {
			led = true
			e.begins(term)
			e.logger.Info("this instance leads")
			<-term.Done()
			return nil
		})
		e.ends(err)
		switch err.(type) {
		case *lock.ErrUnauthorised, *lock.ErrDisabled:
			failing = false
		default:
			switch {
			case led:
				e.logger.Warn("this instance leads no more", "error", err)
				failing = false
			case !failing && ctx.Err() == nil:
				e.logger.Error("there is no telling who leads", "error", err)
				failing = true
			}
		}
		select {
		case <-time.After(e.job.Poll/2 + rand.N(e.job.Poll+1)):
		case <-ctx.Done():
		}
	}
}

func (e *Elector) begins(term context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term, e.why = term, nil
}

func (e *Elector) ends(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term, e.why = nil, why
}

// IsLeader returns nil while this instance leads, and otherwise an error that matches [ErrNotLeader] and says why: an
// *lock.ErrUnauthorised in its chain names the leader. It asks no database. It is an error from the moment the lease is lost, which is
// before another can lead.
func (e *Elector) IsLeader(context.Context) error {
	_, err := e.leads()
	return err
}

func (e *Elector) leads() (term context.Context, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.term != nil && e.term.Err() == nil:
		return e.term, nil
	case e.term != nil:
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, context.Cause(e.term))
	case e.why != nil:
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, e.why)
	}
	return nil, ErrNotLeader
}

// Func makes a task of f, for gocron.NewTask, whose context ends when this instance leads no more, as well as when gocron
// shuts down; lock.LeaseFrom gives the lease of the term. f isn't called if the instance doesn't lead.
func (e *Elector) Func(f func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		term, err := e.leads()
		if err != nil {
			return err
		}
		return both(term, ctx, f)
	}
}

// Close gives up: if this instance leads, it releases the lock, so that another leads within a Poll. Jobs that are running should
// have ended: shut down the scheduler first. Close returns what went wrong with the release, and nil if there was nothing to release; a
// lock that could not be released expires. To call it again does nothing.
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
