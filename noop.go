package lock

import (
	"context"
	"iter"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// NoopLocker is a Locker that grants everything and keeps nothing, for services with a single
// instance and for tests. It is safe for concurrent use.
type NoopLocker struct{}

// Disable does nothing and returns nil: a NoopLocker can't disable a job.
func (l *NoopLocker) Disable(componentName, jobName string) error { return nil }

// Enable does nothing and returns nil.
func (l *NoopLocker) Enable(componentName, jobName string) error { return nil }

// Lock does nothing and returns nil, even if it was called before.
func (l *NoopLocker) Lock(componentName, componentID, jobName, jobID string,
	jobMaxDuration time.Duration) error {
	return nil
}

// Unlock does nothing and returns nil.
func (l *NoopLocker) Unlock(componentName, componentID, jobName, jobID string) error { return nil }

// Acquire grants every lease. It lasts as long as its context.
func (l *NoopLocker) Acquire(ctx context.Context, job Job) (*Lease, error) {
	return noop.Acquire(ctx, job)
}

// Run calls f.
func (l *NoopLocker) Run(ctx context.Context, job Job, f func(ctx context.Context) error) error {
	return noop.Run(ctx, job, f)
}

var noop = &Lock{store: anything{}, hub: newHub(nil)}

// anything is a store that grants everything and keeps nothing.
type anything struct{}

func done() (store.Result, error) {
	now := time.Now()
	return store.Result{Done: true, Written: now, Prev: store.Record{Enabled: true, Now: now}}, nil
}

func (anything) Acquire(context.Context, store.Request, store.Conditions) (store.Result, error) {
	return done()
}

func (anything) Renew(context.Context, store.Request, store.Term) (store.Result, error) {
	return done()
}

func (anything) Release(context.Context, store.Request, store.Term, string) (store.Result, error) {
	return done()
}

func (anything) Enable(context.Context, store.Request, bool) error           { return nil }
func (anything) Delete(context.Context, store.Request) (store.Result, error) { return done() }
func (anything) List(context.Context, store.Request) iter.Seq2[store.Record, error] {
	return func(func(store.Record, error) bool) {}
}
func (anything) Problems(context.Context, store.Request) ([]string, error) { return nil, nil }

func (anything) Get(context.Context, store.Request) (store.Record, error) {
	return store.Record{Enabled: true}, nil
}

func (anything) Fence(context.Context, store.Transaction, store.Request) (store.Record, error) {
	return store.Record{}, nil
}
