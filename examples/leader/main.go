// Command leader has two instances: one leads while the other stands by.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// instance competes for the lead until ctx ends.
func instance(ctx context.Context, l *lock.Lock, id string, elected chan<- string) {
	job := lock.Job{ComponentName: "shop", JobName: "leader", ComponentID: id,
		TTL: 10 * time.Second, Wait: lock.Forever, Poll: 10 * time.Millisecond}
	for ctx.Err() == nil {
		err := l.Run(ctx, job, func(ctx context.Context) error {
			elected <- id
			<-ctx.Done() // a leader starts its work before this, and stops it after
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			fmt.Println(id, err) // the lease is lost, or the database is away: try again
		}
	}
}

func main() {
	l := lock.NewMemory(lock.Options{}) // a service has lock.New(db)
	elected := make(chan string)
	stop := map[string]context.CancelFunc{}
	for _, id := range []string{"instance-1", "instance-2"} {
		var ctx context.Context
		ctx, stop[id] = context.WithCancel(context.Background())
		go instance(ctx, l, id, elected)
	}

	first := <-elected
	fmt.Println("there is one leader")
	stop[first]() // it shuts down, and gives up its lock

	second := <-elected
	fmt.Println("the other one leads:", second != first)
	stop[second]()
}
