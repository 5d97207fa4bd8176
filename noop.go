package lock

import (
	"context"
	"time"
)

// NoopLocker is a locker that grants everything and keeps nothing, for services that run on one instance only and for tests.
// It is safe for concurrent use.
type NoopLocker struct{}

// Disable does nothing and returns nil: a NoopLocker can't disable a job.
func (l *NoopLocker) Disable(componentName, jobName string) error { return nil }

// Enable does nothing and returns nil.
func (l *NoopLocker) Enable(componentName, jobName string) error { return nil }

// Lock does nothing and returns nil, whoever has called it before.
func (l *NoopLocker) Lock(componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error {
	return nil
}

// Unlock does nothing and returns nil.
func (l *NoopLocker) Unlock(componentName, componentID, jobName, jobID string) error { return nil }

// Acquire grants every lease, for as long as its context lasts.
func (l *NoopLocker) Acquire(ctx context.Context, job Job) (*Lease, error) {
	return noop.Acquire(ctx, job)
}

// Run calls f.
func (l *NoopLocker) Run(ctx context.Context, job Job, f func(ctx context.Context) error) error {
	return noop.Run(ctx, job, f)
}

var noop = &Lock{rows: anything{}}

// anything is rows that grant everything and keep nothing.
type anything struct{}

func yes() (reading, error) {
	now := time.Now()
	return reading{won: true, lockTime: now, now: now}, nil
}

func (anything) take(context.Context, identity, claim) (reading, error) { return yes() }
func (anything) free(context.Context, identity, term) (reading, error)  { return yes() }
func (anything) renew(context.Context, identity, term, time.Duration) (reading, error) {
	return yes()
}
func (anything) set(context.Context, identity, bool) error       { return nil }
func (anything) look(context.Context, identity) (reading, error) { return reading{}, nil }
func (anything) list(context.Context) ([]Status, error)          { return nil, nil }
