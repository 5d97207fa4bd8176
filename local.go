package lock

import (
	"errors"
	"sync/atomic"
)

// LocalLock is a lock within one process, for jobs that need no database: a [Lock] for a fleet of
// one. Its zero value is an unlocked lock. It is safe for concurrent use and must not be copied
// after its first use.
type LocalLock struct {
	locked atomic.Bool
}

var errLocalLocked = errors.New("lock: the local lock is already locked")

// NewLocalLock returns an unlocked LocalLock.
func NewLocalLock() *LocalLock { return &LocalLock{} }

// Lock locks l. It returns an error when l is already locked; it never blocks.
func (l *LocalLock) Lock() error {
	if !l.locked.CompareAndSwap(false, true) {
		return errLocalLocked
	}
	return nil
}

// Unlock unlocks l. It returns nil, also when l is not locked.
func (l *LocalLock) Unlock() error {
	l.locked.Store(false)
	return nil
}
