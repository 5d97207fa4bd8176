package lock

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// NewLocal returns a Lock that keeps its locks in the memory of this process, for a laptop, for a service that runs once, and
// for tests. Everything works as with a database, but nobody outside the process is kept from anything, and what was locked
// is forgotten when it ends.
//
// now is the clock by which locks expire, which a database would bring; nil means the one of time.Now. It must be safe for
// concurrent use.
func NewLocal(now func() time.Time) *Lock { return NewLocalWith(now, Options{}) }

// NewLocalWith is [NewLocal] with options. Only the Logger and the Observer matter: there is no table, and nothing to retry.
func NewLocalWith(now func() time.Time, o Options) *Lock {
	if now == nil {
		now = time.Now
	}
	return &Lock{rows: &memory{now: now, rows: map[key]reading{}}, o: o}
}

// memory is rows in a map. A missing row is the zero reading.
type memory struct {
	now func() time.Time

	mu   sync.Mutex
	rows map[key]reading
}

type key struct{ component, job string }

// step reads the row, changes it if change says so, and returns the reading.
func (m *memory) step(id identity, change func(r *reading) bool) reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{id.componentName, id.jobName}
	r := m.rows[k]
	r.now = m.now().UTC().Truncate(time.Microsecond)
	if change(&r) {
		m.rows[k] = r
		r.won = true
	}
	return r
}

// tick moves the lock_time on: to now, or at least past what it was.
func (r *reading) tick() {
	if r.lockTime = r.lockTime.Add(time.Microsecond); r.now.After(r.lockTime) {
		r.lockTime = r.now
	}
}

func (m *memory) take(_ context.Context, id identity, c claim) (reading, error) {
	var from *Holder
	r := m.step(id, func(r *reading) bool {
		if c.judge(id, *r) != lost {
			return false
		}
		if r.locked {
			holder := r.holder()
			from = &holder
		}
		r.componentID, r.jobID, r.locked = id.componentID, id.jobID, true
		r.tick()
		return true
	})
	r.from = from
	return r, nil
}

func (m *memory) free(_ context.Context, id identity, t term) (reading, error) {
	return m.step(id, func(r *reading) bool {
		if !t.holds(id, *r) {
			return false
		}
		r.locked = false
		return true
	}), nil
}

func (m *memory) renew(_ context.Context, id identity, t term, longest time.Duration) (reading, error) {
	return m.step(id, func(r *reading) bool {
		if !t.holds(id, *r) || r.expired(longest) {
			return false
		}
		r.tick()
		return true
	}), nil
}

func (m *memory) set(_ context.Context, id identity, enabled bool) error {
	m.step(id, func(r *reading) bool {
		r.disabled = !enabled
		return true
	})
	return nil
}

func (m *memory) look(_ context.Context, id identity) (reading, error) {
	return m.step(id, func(*reading) bool { return false }), nil
}

func (m *memory) list(context.Context) ([]Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Status
	for k, r := range m.rows {
		r.now = m.now().UTC().Truncate(time.Microsecond)
		s := Status{ComponentName: k.component, JobName: k.job}
		s.fill(r)
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.ComponentName, b.ComponentName), cmp.Compare(a.JobName, b.JobName))
	})
	return all, nil
}
