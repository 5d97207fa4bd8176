package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Release releases the lock and ends the lease's context. It returns nil if the lock is released,
// even by an earlier call. If another has acquired the lock, the error matches [ErrLost], and
// nothing is changed. After an error that matches [ErrOutcomeUnknown], Release can be repeated.
func (le *Lease) Release(ctx context.Context) error {
	return le.end(ctx, "Release", le.Job().JobID)
}

// GiveBack releases the lock like [Lease.Release], for a run that has not begun: another may run
// its tick. Without a [Job.Tick] it is Release.
func (le *Lease) GiveBack(ctx context.Context) error {
	return le.end(ctx, "GiveBack", le.Job().givenBack())
}

// end releases the lock and leaves run in the row.
func (le *Lease) end(ctx context.Context, operation, run string) error {
	if le == nil {
		return errNoLease
	}
	r := le.job.request(operation)
	ctx = limited(ctx)
	le.cancel(ErrReleased) // cuts a renewal short that is under way
	start := time.Now()
	e := le.event(Released)
	res, err, again := le.free(ctx, r, run)
	if again {
		return nil
	}
	if errors.Is(err, ErrLost) {
		e.Kind = Refused
		if res.Prev.Locked {
			e.Holder = holderOf(res.Prev)
		}
	}
	return le.l.ended(ctx, r, e, start, err)
}

// free sends a release. It reports whether the lease had been released before.
func (le *Lease) free(ctx context.Context, r store.Request, run string) (
	res store.Result, err error, again bool) {
	if err := le.enter(ctx); err != nil {
		return res, r.Wrap(err), false
	}
	defer le.leave()

	le.mu.Lock()
	if errors.Is(le.ended, ErrReleased) {
		le.mu.Unlock()
		return res, nil, true
	}
	doubt, lost := le.release, le.ended != nil
	if !doubt.sent {
		doubt.trusted = !lost && le.state.Trusted(time.Now())
	}
	term := le.state.Term()
	if le.unique {
		term.Last = time.Time{} // even if a late attempt of its own has acquired the lock again
	}
	le.mu.Unlock()

	res, err = le.l.store.Release(ctx, r, term, run)
	doubt.sent = doubt.sent || res.Doubt || errors.Is(err, ErrOutcomeUnknown)
	if res.Done || doubt.sent {
		le.l.hub.released(r)
	}
	prev := res.Prev
	mine := prev.ComponentID == r.ComponentID && (prev.JobID == r.JobID || prev.JobID == run)
	switch {
	case err != nil:
	case res.Done, !prev.Locked && mine && (!lost || doubt.sent):
	case doubt.sent && run == r.JobID && !le.job.Tick.IsZero() && prev.JobID <= r.JobID:
		err = r.Wrap(lostTo(r, prev)) // the tick was run again: it was not released in time
	case doubt.sent && doubt.trusted:
	case doubt.sent:
		err = unknown(r, prev)
	default:
		err = r.Wrap(lostTo(r, prev))
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	le.release = doubt
	if err == nil {
		le.ended = ErrReleased
	}
	return res, err, false
}

// lostTo returns the error of a lease whose lock is another's.
func lostTo(r store.Request, rec store.Record) error {
	if rec.Locked {
		return fmt.Errorf("%w: %w", ErrLost, &ErrUnauthorised{request: r, holder: holderOf(rec)})
	}
	return fmt.Errorf("%w: it was released by another", ErrLost)
}
