package lock_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

func TestNewWith_invalid(t *testing.T) {
	for says, wrong := range map[string]lock.Options{
		`the table, "a\x00"`:                      {Table: "a\x00"},
		`the table, "a\xff", has a NUL or is not`: {Table: "a\xff"},
		`the schema, "\x00"`:                      {Schema: "\x00"},
		"longer than 63 bytes":                    {Table: strings.Repeat("l", 64)},
		"of the schema":                           {Schema: strings.Repeat("é", 32), Table: "locks"},
		"is reserved":                             {Table: "this_acquisition"},
		"$lock$":                                  {Table: "a$lock$"},
		"Attempts:-1":                             {Retry: lock.RetryPolicy{Attempts: -1}},
		" Backoff:-1ns":                           {Retry: lock.RetryPolicy{Backoff: -1}},
		"MaxBackoff:-1s":                          {Retry: lock.RetryPolicy{MaxBackoff: -time.Second}},
		"AttemptTimeout:-1s": {
			Retry: lock.RetryPolicy{AttemptTimeout: -time.Second}},
		"is for NewMemory":                {Clock: time.Now},
		`the dialect "oracle" is unknown`: {Dialect: "oracle"},
	} {
		l, err := lock.NewWith(dbtest.Storage{
			OnExec:     func(query string) error { t.Errorf("asked: %s", query); return nil },
			OnQueryRow: func(query string) *sql.Row { t.Errorf("asked: %s", query); return nil },
		}, wrong)
		require.Nil(t, l)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "lock: NewWith: ")
	}
	l, err := lock.NewWith(nil, lock.Options{})
	require.NoError(t, err, "it never is about the Storage")
	require.ErrorContains(t, l.Enable(component, job), "Storage")
}

// serialization is an error that a retry may cure.
type serialization struct{}

func (serialization) Error() string    { return "could not serialize" }
func (serialization) SQLState() string { return "40001" }

func TestRetryPolicy_Attempts(t *testing.T) {
	for attempts, want := range map[int]int{0: 9, 1: 1, 3: 3} {
		db, mock, err := sqlmock.New()
		require.NoError(t, err)
		l, err := lock.NewWith(db, lock.Options{NoDDL: true,
			Retry: lock.RetryPolicy{Attempts: attempts, Backoff: time.Microsecond,
				MaxBackoff: time.Microsecond}})
		require.NoError(t, err)
		for range want {
			mock.ExpectQuery("locks").WillReturnError(serialization{})
		}
		require.ErrorIs(t, l.Lock(component, "a", job, "1", 0), serialization{})
		require.NoError(t, mock.ExpectationsWereMet())
		for range want - 1 {
			mock.ExpectExec("locks").WillReturnError(serialization{})
		}
		mock.ExpectExec("locks").WillReturnResult(sqlmock.NewResult(0, 1))
		require.NoError(t, l.Enable(component, job))
		require.NoError(t, mock.ExpectationsWereMet())
	}
}

func TestEvent(t *testing.T) {
	var got lock.Event
	var log bytes.Buffer
	ctx := context.WithValue(t.Context(), ctxKey{}, "mine")
	l, clock := locktest.NewWith(lock.Options{
		Observer: func(ctx context.Context, e lock.Event) {
			got = e
			require.Equal(t, "mine", ctx.Value(ctxKey{}))
		},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	var lease *lock.Lease
	run := as("a", "1")
	tick := lock.Job{ComponentName: component, ComponentID: "a", JobName: job,
		Tick: time.Now().Truncate(time.Second).Add(48 * time.Hour)}
	for _, step := range []struct {
		call  func() error
		want  lock.Event
		level string
	}{
		{func() error { return l.LockContext(ctx, component, "a", job, "1", time.Hour) },
			lock.Event{Operation: "Lock", Kind: lock.Acquired, TTL: time.Hour}, "INFO"},
		{func() error { return l.LockContext(ctx, component, "b", job, "2", time.Hour) },
			lock.Event{Operation: "Lock", Kind: lock.Refused, TTL: time.Hour}, "DEBUG"},
		{func() error {
			clock.Advance(2 * time.Hour)
			return l.LockContext(ctx, component, "b", job, "2", time.Hour)
		}, lock.Event{Operation: "Lock", Kind: lock.TakenOver, TTL: time.Hour}, "WARN"},
		{func() error { return l.UnlockContext(ctx, component, "a", job, "1") },
			lock.Event{Operation: "Unlock", Kind: lock.Refused}, "DEBUG"},
		{func() error {
			return l.ForceRelease(ctx, component, job,
				lock.Holder{ComponentID: "b",
					JobID: "2"})
		}, lock.Event{Operation: "ForceRelease", Kind: lock.Released}, "INFO"},
		{func() error { return l.DisableContext(ctx, component, job) },
			lock.Event{Operation: "Disable", Kind: lock.Disabled}, "INFO"},
		{func() error { return l.LockContext(ctx, component, "b", job, "2", -1) }, lock.Event{}, ""},
		{func() error { return l.EnableContext(ctx, component, job) },
			lock.Event{Operation: "Enable", Kind: lock.Enabled}, "INFO"},
		{func() (err error) { lease, err = l.Acquire(ctx, run); return err },
			lock.Event{Operation: "Acquire", Kind: lock.Acquired, TTL: time.Hour}, "INFO"},
		{func() error { return lease.Renew(ctx) }, lock.Event{Operation: "Renew", Kind: lock.Renewed,
			TTL: time.Hour}, "DEBUG"},
		{func() error { return lease.Release(ctx) }, lock.Event{Operation: "Release", Kind: lock.Released,
			TTL: time.Hour}, "INFO"},
		{func() error { _, err := l.Acquire(ctx, tick); return err },
			lock.Event{Operation: "Acquire", Kind: lock.Failed, TTL: time.Minute}, "WARN"},
		{func() (err error) { lease, err = l.Acquire(ctx, run); return err },
			lock.Event{Operation: "Acquire", Kind: lock.Acquired, TTL: time.Hour}, "INFO"},
		{func() error { return lease.GiveBack(ctx) }, lock.Event{Operation: "GiveBack",
			Kind: lock.Released, TTL: time.Hour}, "INFO"},
		{func() error { return l.Delete(ctx, component, job) }, lock.Event{Operation: "Delete",
			Kind: lock.Deleted}, "INFO"},
	} {
		got = lock.Event{}
		log.Reset()
		err := step.call()
		if step.level == "" {
			require.Error(t, err)
			require.Zero(t, got, "a call that makes no sense")
			continue
		}
		what := step.want.Operation + " " + string(step.want.Kind)
		require.Equal(t, []any{step.want.Operation, step.want.Kind, step.want.TTL, component, job},
			[]any{got.Operation, got.Kind, got.TTL, got.ComponentName, got.JobName}, what)
		require.Equal(t, err, got.Err, what)
		failed := got.Kind == lock.Refused || got.Kind == lock.Failed
		require.Equal(t, failed, err != nil, what)
		require.Equal(t, got.Kind == lock.Refused || got.Kind == lock.TakenOver,
			got.Holder != lock.Holder{}, what)
		require.Equal(t, strings.HasPrefix(string(got.Operation), "Re") || got.Operation == "GiveBack",
			got.Held > 0, what)
		require.Equal(t, got.Held > 0 || got.Kind == lock.Acquired || got.Kind == lock.TakenOver,
			got.Token != 0, what)
		require.Contains(t, log.String(),
			"level="+step.level+` msg="lock `+string(got.Kind)+`" operation=`+got.Operation, what)
	}
}

type ctxKey struct{}

func as(componentID, jobID string) lock.Job {
	return lock.Job{ComponentName: component, JobName: job, ComponentID: componentID, JobID: jobID,
		TTL: time.Hour}
}
