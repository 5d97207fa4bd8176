package locktick_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// Three instances fire the same tick, one of them late.
func ExampleGuard_Run() {
	guard := locktick.Guard{
		Lock: lock.NewMemory(lock.Options{}), // lock.New(db)
		Job:  lock.Job{ComponentName: "shop", JobName: "report"},
	}
	report := func(ctx context.Context) error {
		fmt.Println("the report of", lock.LeaseFrom(ctx).Job().JobID)
		return nil
	}

	tick := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for range 3 {
		result := guard.Run(context.Background(), tick, report)
		fmt.Println(result.Outcome)
	}
	// Output:
	// the report of 2026-11-25T12:00:00Z
	// ran
	// already run
	// already run
}

// Every instance runs the loop, and each tick is run by one of them.
func ExampleGuard_Loop() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	guard := locktick.Guard{
		Lock: lock.NewMemory(lock.Options{}), // lock.New(db)
		Job:  lock.Job{ComponentName: "shop", JobName: "report"},
	}

	var instances sync.WaitGroup
	for range 3 {
		instances.Go(func() {
			guard.Loop(ctx, locktick.Every(time.Second), func(context.Context) error {
				fmt.Println("the report")
				cancel() // one is enough
				return nil
			})
		})
	}
	instances.Wait()
	// Output:
	// the report
}

// A ticker begins when its process starts. The time of a tick is rounded down, so that each
// period has one run.
func ExampleGuard_Run_ticker() {
	const period = 10 * time.Minute
	guard := locktick.Guard{
		Lock: lock.NewMemory(lock.Options{}), // lock.New(db)
		Job:  lock.Job{ComponentName: "shop", JobName: "report"},
	}
	report := func(context.Context) error { return nil }

	ticks := make(chan time.Time, 4) // time.NewTicker(period).C
	ticks <- time.Date(2026, 11, 25, 12, 3, 7, 2000, time.UTC)
	ticks <- time.Date(2026, 11, 25, 12, 8, 1, 9000, time.UTC) // another instance's
	ticks <- time.Date(2026, 11, 25, 12, 13, 7, 3000, time.UTC)
	ticks <- time.Date(2026, 11, 25, 12, 18, 1, 8000, time.UTC)
	close(ticks)
	for now := range ticks {
		fmt.Println(now.Format(time.TimeOnly), guard.Run(context.Background(), now.Truncate(period),
			report).Outcome)
	}
	// Output:
	// 12:03:07 ran
	// 12:08:01 already run
	// 12:13:07 ran
	// 12:18:01 already run
}

// A scheduler sends the request for a tick to all instances.
func ExampleGuard_Handler() {
	guard := locktick.Guard{
		Lock: lock.NewMemory(lock.Options{}), // lock.New(db)
		Job:  lock.Job{ComponentName: "shop", JobName: "report", RetryFailed: true},
	}
	mux := http.NewServeMux()
	mux.Handle("POST /jobs/report", guard.Handler(locktick.FromHeader("Tick"),
		func(context.Context) error { return nil }))

	for range 2 {
		request := httptest.NewRequest("POST", "/jobs/report", nil)
		request.Header.Set("Tick", "2026-11-25T12:00:00Z")
		response := httptest.NewRecorder()
		mux.ServeHTTP(response, request)
		fmt.Println(response.Code, response.Header().Get(locktick.OutcomeHeader))
	}
	// Output:
	// 200 ran
	// 200 already run
}
