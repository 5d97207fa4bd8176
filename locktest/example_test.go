package locktest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// An instance dies, and an hour later another takes its job over.
func ExampleNew() {
	l, clock := locktest.New()
	fmt.Println(l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))

	clock.Advance(time.Hour)
	fmt.Println(l.Lock("shop", "instance-2", "backup", "run-2", time.Hour) != nil)

	clock.Advance(time.Second)
	fmt.Println(l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	// Output:
	// <nil>
	// true
	// <nil>
}

// A service handles a holder that has died.
func ExampleNewWith() {
	l, clock := locktest.NewWith(lock.Options{Observer: func(_ context.Context, e lock.Event) {
		if e.Kind == lock.TakenOver {
			fmt.Println("page somebody:", e.Holder.ComponentID, "has died")
		}
	}})
	if err := l.Lock("shop", "instance-1", "backup", "run-1", time.Hour); err != nil {
		fmt.Println(err)
	}
	clock.Advance(2 * time.Hour)
	fmt.Println(l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	// Output:
	// page somebody: instance-1 has died
	// <nil>
}
