// Command tick has a schedule that every instance fires. Each tick is run once in the fleet.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// fire is called by the scheduler of an instance at a tick.
func fire(ctx context.Context, l *lock.Lock, instance string, tick time.Time) error {
	job := lock.Job{ComponentName: "shop", JobName: "report", ComponentID: instance, Tick: tick}
	err := l.Run(ctx, job, func(context.Context) error {
		fmt.Println(instance, "writes the report of", tick.Format(time.DateOnly))
		return nil
	})
	var already *lock.ErrAlreadyRun
	if errors.As(err, &already) {
		fmt.Println(instance, "has nothing to do:", already.Last().JobID, "has been run")
		return nil
	}
	return err
}

func main() {
	l := lock.NewMemory(lock.Options{}) // a service has lock.New(db)
	monday := time.Date(2026, time.March, 2, 2, 0, 0, 0, time.UTC)

	// The clock of the second instance is slow: it fires when the run is over.
	for _, at := range []struct {
		instance string
		tick     time.Time
	}{{"instance-1", monday}, {"instance-2", monday}, {"instance-2", monday.AddDate(0, 0, 1)}} {
		if err := fire(context.Background(), l, at.instance, at.tick); err != nil {
			fmt.Println(err)
		}
	}
}
