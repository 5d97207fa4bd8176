package locktest_test

import (
	"fmt"
	"time"

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
