package lock

import (
	"errors"
	"sync/atomic"
)

// LocalLock is a lock within one process, for jobs that need no database. Its zero value is
// unlocked. It is safe for concurrent use and must not be copied after its first use.
type LocalLock struct {
	locked atomic.Bool
}

var errLocalLocked = errors.New("lock: the local lock is already locked")

// NewLocalLock returns an unlocked LocalLock.
func NewLocalLock() *LocalLock { return &LocalLock{} }

// Lock locks l. It returns an error if l is already locked. It never blocks.
func (l *LocalLock) Lock() error {
	if !l.locked.CompareAndSwap(false, true) {
		return errLocalLocked
	}
	return nil
}

// Unlock unlocks l. It returns nil, even if l is not locked.
func (l *LocalLock) Unlock() error {
	l.locked.Store(false)
	return nil
}
