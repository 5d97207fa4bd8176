package lock

import (
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// NewMemory returns a Lock that keeps its locks in the memory of this process, for a laptop, for
// a service that runs once, and for tests. Everything works as with a database, but nobody
// outside the process is kept from anything, and what was locked is forgotten when it ends. Of
// the options, Clock, Logger, Observer and Notifier matter: there is no table, and nothing to
// retry.
func NewMemory(o Options) *Lock {
	now := o.Clock
	if now == nil {
		now = time.Now
	}
	return &Lock{store: store.NewMemory(now), hub: newHub(o.Notifier), o: o}
}
