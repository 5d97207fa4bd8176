package locktick

import (
	"context"
	"fmt"
	"time"
)

// Loop calls f at every tick of the schedule for which this instance acquires the lock. When ctx
// ends, it returns ctx.Err() as soon as f has returned. Any other error is that of [Guard.Check],
// or says that the schedule has no more ticks. The Guard reports the outcome of each tick and
// what f returns.
//
// Loop fires when the wall clock of this instance reaches the tick, even if the clock is stepped.
// It fires one tick after the other: ticks that are due while f runs, or while the process is
// stopped, are left to other instances.
func (g Guard) Loop(ctx context.Context, s Schedule, f func(ctx context.Context) error) error {
	if err := g.Check(s); err != nil {
		return err
	}
	for {
		tick := s.Next(g.now()).Round(0)
		if tick.IsZero() {
			return fmt.Errorf("locktick: job %q: its schedule has no tick after %v", g.Job.JobName,
				g.now().Round(0))
		}
		if err := g.sleepUntil(ctx, tick); err != nil {
			return err
		}
		g.Run(ctx, tick, f)
	}
}

// look is the interval at which the wall clock is read: timers use the monotonic clock, which
// doesn't notice its steps and may stand still while the machine is suspended.
const look = time.Minute

func (g Guard) sleepUntil(ctx context.Context, t time.Time) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		left := t.Sub(g.now().Round(0))
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(min(left, look))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}
