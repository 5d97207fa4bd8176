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

func Example() {
	guard := locktick.Guard{
		Lock: lock.NewMemory(lock.Options{}), // lock.New(db)
		Job:  lock.Job{ComponentName: "shop", JobName: "report"},
	}
	report := func(ctx context.Context) error {
		return nil // makes the report, unless ctx ends
	}
	nightly, err := cron.ParseStandard("0 3 * * *")
	if err != nil {
		log.Fatal(err)
	}
	job, err := lockcron.New(context.Background(), guard, nightly, report)
	if err != nil {
		log.Fatal(err)
	}
	c := cron.New()
	c.Schedule(job, cron.NewChain(cron.Recover(cron.DefaultLogger)).Then(job))
	c.Start()
	<-c.Stop().Done()

	_, err = lockcron.New(context.Background(), guard, cron.Every(time.Hour), report)
	fmt.Println(err != nil) // it begins when the process starts
	// Output:
	// true
}
