package locktest

import (
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// Clock is a clock that stands still until the test sets it. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// New returns a [lock.NewMemory] whose locks expire by a Clock, which begins at the present time.
// The Clock stands only for the database's clock: the deadline of a lease, and waiting, use
// package time, which testing/synctest can simulate.
func New() (*lock.Lock, *Clock) { return NewWith(lock.Options{}) }

// NewWith is [New] with options, such as a Logger or an Observer. It sets Options.Clock.
func NewWith(o lock.Options) (*lock.Lock, *Clock) {
	c := &Clock{now: time.Now()}
	o.Clock = c.Now
	return lock.NewMemory(o), c
}

// Now returns the time of the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, backwards if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
