package store

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// Memory is a Store in the memory of this process.
type Memory struct {
	now func() time.Time

	mu      sync.Mutex
	records map[name]Record
}

type name struct{ component, job string }

// NewMemory returns an empty Memory with the clock now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, records: map[name]Record{}}
}

// step changes the record if change returns true, and returns the previous one.
func (m *Memory) step(r Request, change func(rec *Record) bool) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := name{r.ComponentName, r.JobName}
	prev := m.read(k)
	rec := prev
	if !change(&rec) {
		return Result{Prev: prev}
	}
	rec.Exists = true
	m.records[k] = rec
	return Result{Done: true, Prev: prev, Written: rec.LockTime}
}

func (m *Memory) read(k name) Record {
	rec, ok := m.records[k]
	if !ok {
		rec = Record{Enabled: true, LockTime: earliest}
	}
	rec.ComponentName, rec.JobName = k.component, k.job
	rec.Now = m.now().UTC().Truncate(time.Microsecond)
	return rec
}

// touch sets the lock time to now, or to just above the previous one.
func (rec *Record) touch() {
	rec.LockTime = rec.LockTime.Add(time.Microsecond)
	if rec.Now.After(rec.LockTime) {
		rec.LockTime = rec.Now
	}
}

func (rec *Record) expired(ttl time.Duration) bool {
	return ttl > 0 && rec.Now.After(rec.LockTime.Add(ttl))
}

// refusal does what the CASE in the SQL statements does.
func (cond Conditions) refusal(r Request, rec Record) string {
	switch {
	case !rec.Enabled:
		return Disabled
	case cond.Tick && rec.Now.Before(cond.Earliest):
		return Ahead
	case cond.Tick && isTick(rec.JobID) && rec.JobID > r.JobID:
		return Already
	case cond.Tick && rec.JobID == r.JobID && !rec.Locked:
		return Already
	case rec.Locked && !rec.expired(cond.TTL):
		return Held
	case !rec.Locked && cond.Spacing > 0 && !rec.Now.After(rec.LockTime.Add(cond.Spacing)):
		return Already
	}
	return Available
}

// TickLayout is the layout of the name of a tick, in UTC.
const TickLayout = "2006-01-02T15:04:05Z"

func isTick(run string) bool {
	_, err := time.Parse(TickLayout, run)
	return err == nil
}

// Acquire implements Store.
func (m *Memory) Acquire(_ context.Context, r Request, cond Conditions) (Result, error) {
	var refusal string
	res := m.step(r, func(rec *Record) bool {
		if refusal = cond.refusal(r, *rec); refusal != Available {
			return false
		}
		rec.ComponentID, rec.JobID, rec.Locked = r.ComponentID, r.JobID, true
		rec.touch()
		return true
	})
	res.Refusal = refusal
	return res, nil
}

// Renew implements Store.
func (m *Memory) Renew(_ context.Context, r Request, t Term) (Result, error) {
	return m.step(r, func(rec *Record) bool {
		if !t.Holds(r, *rec) || rec.expired(t.TTL) {
			return false
		}
		rec.touch()
		return true
	}), nil
}

// Release implements Store.
func (m *Memory) Release(_ context.Context, r Request, t Term, run string) (Result, error) {
	return m.step(r, func(rec *Record) bool {
		if !t.Holds(r, *rec) {
			return false
		}
		rec.Locked, rec.JobID = false, run
		return true
	}), nil
}

// Enable implements Store.
func (m *Memory) Enable(_ context.Context, r Request, enabled bool) error {
	m.step(r, func(rec *Record) bool {
		rec.Enabled = enabled
		return true
	})
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, r Request) (Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := name{r.ComponentName, r.JobName}
	prev := m.read(k)
	if !prev.Exists || prev.Locked {
		return Result{Prev: prev}, nil
	}
	delete(m.records, k)
	return Result{Done: true, Prev: prev}, nil
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, r Request) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read(name{r.ComponentName, r.JobName}), nil
}

// List implements Store.
func (m *Memory) List(context.Context, Request) iter.Seq2[Record, error] {
	m.mu.Lock()
	var all []Record
	for k := range m.records {
		all = append(all, m.read(k))
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.ComponentName, b.ComponentName), cmp.Compare(a.JobName, b.JobName))
	})
	return func(yield func(Record, error) bool) {
		for _, rec := range all {
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// Fence implements Store. It checks the record at this moment, and locks nothing.
func (m *Memory) Fence(ctx context.Context, _ Transaction, r Request) (Record, error) {
	return m.Get(ctx, r)
}

// Problems implements Store.
func (m *Memory) Problems(context.Context, Request) ([]string, error) { return nil, nil }
