// Command run runs a job on one instance of a fleet at a time.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

func main() {
	l := lock.NewMemory(lock.Options{}) // a service has lock.New(db)
	ctx := context.Background()

	// The TTL is how soon another takes over if this instance dies, not how long a run may take:
	// the lock is renewed while the function runs.
	job := lock.Job{ComponentName: "shop", JobName: "outbox", TTL: 30 * time.Second}

	err := l.Run(ctx, job, func(ctx context.Context) error { // ctx ends if the lease is lost
		fmt.Println("draining the outbox")

		// Meanwhile another instance tries.
		err := l.Run(ctx, job, func(context.Context) error { return errors.New("two at once") })
		fmt.Println("another instance is refused:", errors.Is(err, lock.ErrRefused))
		return nil
	})
	fmt.Println("error:", err)
}
