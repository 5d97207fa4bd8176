package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// The default times between two looks of a waiter.
const (
	pollAlone    = time.Second          // nothing announces a release in another process
	pollNotified = 15 * time.Second     // a Notifier does
	pollFile     = 4 * time.Millisecond // a look at an SQLite file takes some microseconds
	behind       = 12                   // waiters behind the first look this much less often
	maxStagger   = 64 * time.Millisecond
)

// A waiter paces the attempts of an Acquire that waits.
type waiter struct {
	l      *Lock
	job    Job
	until  time.Time // zero: as long as the context
	poll   time.Duration
	ticket *ticket // nil before the first refusal
	vain   int     // how often it was woken in vain, in a row
}

func newWaiter(l *Lock, job Job) *waiter {
	w := &waiter{l: l, job: job}
	if job.Wait > 0 && job.Wait != Forever {
		w.until = time.Now().Add(job.Wait)
	}
	return w
}

// close ends the waiting.
func (w *waiter) close() {
	if w.ticket != nil {
		w.l.hub.leave(w.ticket)
	}
}

// wait waits for the next attempt, and reports whether there is to be one after this error.
func (w *waiter) wait(ctx context.Context, err error) bool {
	var held *ErrUnauthorised
	refused := errors.As(err, &held)
	if w.job.Wait == 0 || !refused && !store.Passing(err) {
		return false
	}
	if w.ticket == nil && refused {
		// A release before the ticket was there has woken nobody: look once more.
		w.ticket = w.l.hub.join(lockName{w.job.ComponentName, w.job.JobName})
		return ctx.Err() == nil
	}
	left := Forever
	if !w.until.IsZero() {
		if left = time.Until(w.until); left <= 0 {
			return false
		}
	}
	timer := time.NewTimer(min(w.pause(held), left))
	defer timer.Stop()
	select {
	case <-timer.C:
		w.vain = 0
		return true
	case <-w.woken():
		return w.stagger(ctx)
	case <-ctx.Done():
		return false
	}
}

func (w *waiter) woken() <-chan struct{} {
	if w.ticket == nil {
		return nil
	}
	return w.ticket.woke
}

// pause returns how long to wait if no release is announced.
func (w *waiter) pause(held *ErrUnauthorised) time.Duration {
	most := w.mostPause()
	if w.poll == 0 {
		w.poll = most / 8
	}
	w.poll = min(2*w.poll, most)
	d := w.poll
	if w.ticket != nil && !w.l.hub.first(w.ticket) {
		d *= behind
	}
	d = d/2 + rand.N(d+1)
	if held != nil && w.job.TTL != Forever {
		// Many may wait for this moment: spread them.
		if left := w.job.TTL - held.holder.Age; left < d {
			d = max(left, 0) + time.Millisecond + rand.N(min(most, pollAlone)/8+1)
		}
	}
	return d
}

func (w *waiter) mostPause() time.Duration {
	switch t, ok := w.l.store.(*store.Table); {
	case w.job.Poll > 0:
		return w.job.Poll
	case ok && t.IsFile():
		return pollFile
	case w.l.o.Notifier != nil:
		return pollNotified
	}
	return pollAlone
}

// stagger returns a delay for a waiter that was woken in vain before. At first there is none, so
// that each process looks at once.
func (w *waiter) stagger(ctx context.Context) bool {
	d := min(time.Millisecond<<min(w.vain, 10), maxStagger)
	if w.vain++; w.vain == 1 {
		return ctx.Err() == nil
	}
	return store.Sleep(ctx, rand.N(d))
}
