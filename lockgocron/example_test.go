package lockgocron_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/jonboulle/clockwork"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// Two instances, whose clocks differ by two seconds, fire the same tick.
func ExampleLocker() {
	nightly, err := lockgocron.Crontab("0 3 * * *", false, time.UTC)
	if err != nil {
		log.Fatal(err)
	}
	// lock.New(db)
	l := lock.NewMemory(lock.Options{Clock: func() time.Time {
		return time.Date(2026, 11, 25, 3, 0, 0,
			0, time.UTC)
	}})
	told := make(chan locktick.Result)

	for _, now := range []time.Time{
		time.Date(2026, 11, 25, 2, 59, 59, 0, time.UTC),
		time.Date(2026, 11, 25, 2, 59, 57, 0, time.UTC),
	} {
		clock := clockwork.NewFakeClockAt(now) // in the place of the real one
		locker, err := lockgocron.NewLocker(locktick.Guard{
			Lock:   l,
			Job:    lock.Job{ComponentName: "shop"},
			Now:    clock.Now,
			Report: func(_ context.Context, r locktick.Result) { told <- r },
		})
		if err != nil {
			log.Fatal(err)
		}
		if err := locker.Schedule("report", nightly); err != nil {
			log.Fatal(err)
		}
		s, err := gocron.NewScheduler(gocron.WithLocation(time.UTC), gocron.WithClock(clock),
			gocron.WithDistributedLocker(locker))
		if err != nil {
			log.Fatal(err)
		}
		defer s.Shutdown()
		_, err = s.NewJob(gocron.CronJob("0 3 * * *", false), gocron.NewTask(locker.Func("report",
			func(ctx context.Context) error {
				fmt.Println("the report of", lock.LeaseFrom(ctx).Job().JobID)
				return nil // makes the report, unless ctx ends
			})), gocron.WithName("report"))
		if err != nil {
			log.Fatal(err)
		}
		s.Start()
		clock.Advance(3 * time.Second)
		fmt.Println((<-told).Outcome)
	}
	// Output:
	// the report of 2026-11-25T03:00:00Z
	// ran
	// already run
}

func ExampleElector() {
	l := lock.NewMemory(lock.Options{}) // lock.New(db)
	elector, err := lockgocron.NewElector(l, lock.Job{ComponentName: "shop", JobName: "leader",
		TTL: 15 * time.Second}, nil)
	if err != nil {
		log.Fatal(err)
	}
	s, err := gocron.NewScheduler(gocron.WithDistributedElector(elector))
	if err != nil {
		log.Fatal(err)
	}
	_, err = s.NewJob(gocron.CronJob("0 3 * * *", false),
		gocron.NewTask(elector.Func(func(ctx context.Context) error {
			return nil // makes the report, unless ctx ends
		})))
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	// When the process ends, another instance leads as soon as the jobs of this one have ended.
	fmt.Println(s.Shutdown())
	fmt.Println(elector.Close())
	// Output:
	// <nil>
	// <nil>
}
