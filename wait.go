package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// A waiter paces the attempts of an Acquire that waits.
type waiter struct {
	job   Job
	until time.Time // zero: as long as the context
	poll  time.Duration
}

func newWaiter(job Job) *waiter {
	w := &waiter{job: job, poll: job.Poll / 8}
	if job.Wait > 0 && job.Wait != Forever {
		w.until = time.Now().Add(job.Wait)
	}
	return w
}

// wait waits for the next attempt, and reports whether there is to be one after this error.
func (w *waiter) wait(ctx context.Context, err error) bool {
	var held *ErrUnauthorised
	refused := errors.As(err, &held)
	if w.job.Wait == 0 || !refused && !store.Passing(err) {
		return false
	}
	w.poll = min(2*w.poll, w.job.Poll)
	d := w.poll/2 + rand.N(w.poll+1)
	if refused && w.job.TTL != Forever {
		// Many may wait for this moment: not all at once.
		if left := w.job.TTL - held.holder.Age; left < d {
			d = max(left, 0) + time.Millisecond + rand.N(w.job.Poll/8+1)
		}
	}
	if !w.until.IsZero() {
		left := time.Until(w.until)
		if left <= 0 {
			return false
		}
		d = min(d, left)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
