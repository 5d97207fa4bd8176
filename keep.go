package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/lease"
	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// keep renews the lease until it ends.
func (le *Lease) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-le.ctx.Done():
			return
		case <-timer.C:
		case <-le.wake:
		}
		now := time.Now()
		le.mu.Lock()
		action, next := le.state.Tick(now)
		by := le.state.By(now)
		le.mu.Unlock()
		switch action {
		case lease.Expire:
			le.lose(errExpired)
			return
		case lease.Renew:
			go func() {
				ctx, cancel := context.WithDeadline(le.ctx, by)
				defer cancel()
				le.Renew(ctx)
			}()
		}
		timer.Reset(time.Until(next))
	}
}

// changed wakes the keeper.
func (le *Lease) changed() {
	select {
	case le.wake <- struct{}{}:
	default:
	}
}

// lose ends the lease as lost, unless it has ended.
func (le *Lease) lose(why error) {
	le.mu.Lock()
	first := le.ended == nil && le.ctx.Err() == nil
	if le.ended == nil {
		le.ended = why
	}
	le.mu.Unlock()
	le.cancel(why)
	if first {
		e := le.event(Lost)
		e.Err = why
		le.l.tell(context.WithoutCancel(le.ctx), le.job.request("Renew"), e)
	}
}

// event returns an event of the lease.
func (le *Lease) event(kind EventKind) Event {
	return Event{Kind: kind, Token: le.token, TTL: finite(le.job.TTL), Held: time.Since(le.since)}
}

// enter waits until no statement of the lease is under way.
func (le *Lease) enter(ctx context.Context) error {
	select {
	case le.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (le *Lease) leave() { <-le.turn }

// Renew renews the lease now; its TTL begins anew. It need not be called: leases are renewed in
// the background. An error that matches [ErrLost] or [ErrReleased] is final. After another error,
// the lease may still be renewed until its deadline.
func (le *Lease) Renew(ctx context.Context) error {
	if le == nil {
		return errNoLease
	}
	r := le.job.request("Renew")
	start := time.Now()
	res, err := le.renew(ctx, r)
	le.changed()
	switch {
	case errors.Is(err, ErrLost):
		le.lose(err)
		return r.Wrap(err)
	case errors.Is(err, ErrReleased):
		return r.Wrap(err)
	case err == nil && le.job.StopWhenDisabled && !res.Prev.Enabled:
		err = fmt.Errorf("%w: %w", ErrLost, &ErrDisabled{request: r})
		le.lose(err)
		return r.Wrap(err)
	}
	if err == nil || le.ctx.Err() == nil { // not if the release has cut it short
		le.l.ended(ctx, r, le.event(Renewed), start, err)
	}
	return err
}

// renew sends a renewal and records its answer.
func (le *Lease) renew(ctx context.Context, r store.Request) (store.Result, error) {
	if err := le.enter(ctx); err != nil {
		le.mu.Lock()
		defer le.mu.Unlock()
		le.state.Unsent(time.Now())
		return store.Result{}, r.Wrap(err)
	}
	defer le.leave()

	le.mu.Lock()
	if err := le.err(); err != nil {
		le.mu.Unlock()
		if !errors.Is(err, ErrLost) && !errors.Is(err, ErrReleased) {
			err = r.Wrap(err)
		}
		return store.Result{}, err
	}
	term, deadline := le.state.Term(), le.state.Deadline()
	le.state.Sent(time.Now())
	le.mu.Unlock()

	if deadline.IsZero() {
		deadline = time.Now().Add(time.Hour)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(le.ctx, cancel)() // a release cuts it short
	res, err := le.l.store.Renew(ctx, r, term)

	le.mu.Lock()
	defer le.mu.Unlock()
	switch {
	case err != nil:
		le.state.Failed(time.Now(), errors.Is(err, ErrOutcomeUnknown))
		return res, err
	case res.Done && le.ended != nil:
		return res, le.ended // too late
	case res.Done:
		le.state.Answered(res.Written, res.Doubt)
		return res, nil
	}
	le.state.Failed(time.Now(), false) // or a release would take it for one under way
	if res.Doubt {
		term = term.Widen()
	}
	if term.Holds(r, res.Prev) {
		return res, fmt.Errorf("%w: it has expired", ErrLost)
	}
	return res, lostTo(r, res.Prev)
}
