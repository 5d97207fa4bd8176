package store

import (
	"sync"
	"time"
)

// maxLast limits how many locks are remembered.
const maxLast = 1024

// lockTimes remembers the locks that this process acquired last, as far as it knows.
type lockTimes struct {
	mu sync.Mutex
	of map[name]time.Time
}

func (l *lockTimes) get(r Request) (lockTime time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lockTime, ok = l.of[name{r.ComponentName, r.JobName}]
	return lockTime, ok
}

// set remembers an acquisition; the zero time forgets it.
func (l *lockTimes) set(r Request, lockTime time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := name{r.ComponentName, r.JobName}
	if lockTime.IsZero() {
		delete(l.of, k)
		return
	}
	if l.of == nil || len(l.of) >= maxLast {
		l.of = map[name]time.Time{}
	}
	l.of[k] = lockTime
}
