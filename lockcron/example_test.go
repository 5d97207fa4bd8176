package lockcron_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockcron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func guard() locktick.Guard {
	return locktick.Guard{
		Lock: lock.NewLocal(nil), // lock.New(db)
		Job:  lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: time.Minute},
	}
}

func ExampleAddFunc() {
	c := cron.New()
	_, err := lockcron.AddFunc(context.Background(), c, "0 3 * * *", guard(), func(ctx context.Context) error {
		return nil // makes the report, unless ctx ends
	})
	fmt.Println(err)

	_, err = lockcron.AddFunc(context.Background(), c, "@every 1h", guard(), func(context.Context) error { return nil })
	fmt.Println(err)

	c.Start()
	<-c.Stop().Done()
	// Output:
	// <nil>
	// lockcron: job "report": @every 1h0m0s begins when the process starts, so its ticks have no names in common: use a spec that names times, or set Spacing in the guard's Job
}

// Two instances fire the same tick, which is the last full hour's.
func ExampleWrapper() {
	hourly, err := cron.ParseStandard("@hourly")
	if err != nil {
		log.Fatal(err)
	}
	g := guard()
	g.Now = func() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 9000, time.UTC) }
	once, err := lockcron.Wrapper(context.Background(), g, hourly, time.UTC)
	if err != nil {
		log.Fatal(err)
	}
	job := cron.NewChain(once).Then(lockcron.Func(func(ctx context.Context) error {
		fmt.Println("the report of", lock.LeaseFrom(ctx).Job().JobID)
		return nil
	}))
	job.Run() // as the cron of either does: c.Schedule(hourly, job)
	job.Run()
	// Output:
	// the report of 2026-11-25T12:00:00Z
}
