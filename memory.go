package lock

import (
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// NewMemory returns a Lock that keeps its locks in the memory of this process, for laptops,
// single instances and tests. It behaves as with a database, but excludes nobody outside of the
// process and forgets its locks at the end. It uses the options Clock, Logger, Observer and
// Notifier, and ignores the others.
func NewMemory(o Options) *Lock {
	now := o.Clock
	if now == nil {
		now = time.Now
	}
	return &Lock{store: store.NewMemory(now), hub: newHub(o.Notifier), o: o}
}
