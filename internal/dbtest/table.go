package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// A Row is a row of the table, as a test writes and reads it. nil is NULL.
type Row struct {
	ComponentID, JobID, Enabled, Status any
	// how long before the database's now the lock_time is, a time.Duration
	Age any
}

// The component and the job of the specification. The caller has component ID a and job ID 1.
const (
	Component = "shop"
	Job       = "backup"
)

// A Table reads and writes the row of the job.
type Table struct {
	T      testing.TB
	Engine Engine
	*sql.DB
	DSN string

	memory *lock.Lock // in place of the database
	clock  *locktest.Clock
}

// NewTable returns an empty table of the engine.
func NewTable(t testing.TB, e Engine) Table {
	if e.Memory() {
		memory, clock := locktest.New()
		return Table{T: t, Engine: e, memory: memory, clock: clock}
	}
	dsn := e.DSN(t)
	return Table{T: t, Engine: e, DB: e.OpenDSN(t, dsn), DSN: dsn}
}

// Lock returns a Lock on the table, which it creates.
func (tb Table) Lock() *lock.Lock {
	if tb.Engine.Memory() {
		return tb.memory
	}
	return lock.New(tb.DB)
}

// With returns the table for a subtest.
func (tb Table) With(t testing.TB) Table {
	tb.T = t
	return tb
}

// Now returns the time of the database.
func (tb Table) Now() time.Time {
	if tb.Engine.Memory() {
		return tb.clock.Now().UTC().Truncate(time.Microsecond)
	}
	query := "SELECT clock_timestamp()"
	if tb.Engine.SQLite() {
		query = "SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
	}
	var v any
	require.NoError(tb.T, tb.QueryRow(query).Scan(&v))
	if ms, ok := v.(int64); ok {
		return time.UnixMilli(ms).UTC()
	}
	return v.(time.Time).UTC()
}

// Timestamp returns a lock_time as an argument for the database.
func (tb Table) Timestamp(at time.Time) any {
	if tb.Engine.SQLite() {
		return at.Format("2006-01-02 15:04:05.000000+00:00")
	}
	return at
}

// CanHold reports whether the engine can hold the row: in memory there are no NULLs, and only two
// statuses.
func (tb Table) CanHold(r Row) bool {
	if !tb.Engine.Memory() || r == (Row{}) {
		return true
	}
	_, hasAge := r.Age.(time.Duration)
	return hasAge && r.ComponentID != nil && r.JobID != nil && r.Enabled != nil &&
		(r.Status == "LOCKED" || r.Status == "UNLOCKED")
}

// Put writes the row of the job.
func (tb Table) Put(r Row) {
	if tb.Engine.Memory() {
		tb.Remove()
		age := r.Age.(time.Duration)
		tb.clock.Advance(-age)
		require.NoError(tb.T, tb.memory.Lock(Component, r.ComponentID.(string), Job, r.JobID.(string), 0))
		tb.clock.Advance(age)
		if r.Status == "UNLOCKED" {
			require.NoError(tb.T, tb.memory.Unlock(Component, r.ComponentID.(string), Job, r.JobID.(string)))
		}
		if r.Enabled == false {
			require.NoError(tb.T, tb.memory.Disable(Component, Job))
		}
		return
	}
	var lockTime any
	if age, ok := r.Age.(time.Duration); ok {
		lockTime = tb.Timestamp(tb.Now().Add(-age))
	}
	_, err := tb.Exec(`INSERT INTO locks
(component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (component_name, job_name) DO UPDATE
SET component_id = excluded.component_id, job_id = excluded.job_id,
enabled = excluded.enabled, status = excluded.status, lock_time = excluded.lock_time`,
		Component, r.ComponentID, Job, r.JobID, r.Enabled, r.Status, lockTime)
	require.NoError(tb.T, err)
}

// InTransaction calls f with a transaction, nil in memory, and commits it unless f fails.
func (tb Table) InTransaction(f func(tx lock.Transaction) error) error {
	if tb.Engine.Memory() {
		return f(nil)
	}
	tx, err := tb.Begin()
	require.NoError(tb.T, err)
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Insert writes a row by hand; its lock_time is an SQL expression.
func (tb Table) Insert(job, componentID, jobID, status, lockTime string) {
	_, err := tb.Exec("INSERT INTO locks (component_name, component_id, job_name, job_id, enabled, "+
		"status, lock_time) "+
		"VALUES ($1, $2, $3, $4, TRUE, $5, "+lockTime+")", Component, componentID, job, jobID, status)
	require.NoError(tb.T, err)
}

// Age makes the row of the job older.
func (tb Table) Age(by time.Duration) {
	if tb.Engine.Memory() {
		tb.clock.Advance(by)
		return
	}
	lockTime := tb.Get(Component, Job).LockTime.Time.Add(-by)
	_, err := tb.Exec("UPDATE locks SET lock_time = $1 WHERE component_name = $2 AND job_name = $3",
		tb.Timestamp(lockTime), Component, Job)
	require.NoError(tb.T, err)
}

// Remove deletes all rows.
func (tb Table) Remove() {
	if tb.Engine.Memory() {
		ctx := context.Background()
		for s := range tb.memory.All(ctx) {
			require.NoError(tb.T, tb.memory.ForceRelease(ctx, s.ComponentName, s.JobName, s.Holder))
			require.NoError(tb.T, tb.memory.Delete(ctx, s.ComponentName, s.JobName))
		}
		return
	}
	_, err := tb.Exec("DELETE FROM locks")
	require.NoError(tb.T, err)
}

// Stored is the content of a row.
type Stored struct {
	ComponentID, JobID, Status sql.NullString
	Enabled                    sql.NullBool
	LockTime                   sql.NullTime
}

// Get returns the row of a job, or nil. It reads all columns in order, like clients of the 2018
// package.
func (tb Table) Get(component, job string) *Stored {
	if tb.Engine.Memory() {
		return tb.recall(component, job)
	}
	var (
		s                Stored
		component2, job2 string
	)
	err := tb.QueryRow("SELECT * FROM locks WHERE component_name = $1 AND job_name = $2", component,
		job).
		Scan(&component2, &s.ComponentID, &job2, &s.JobID, &s.Enabled, &s.Status, &s.LockTime)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	require.NoError(tb.T, err)
	require.Equal(tb.T, []string{component, job}, []string{component2, job2})
	s.LockTime.Time = s.LockTime.Time.UTC()
	return &s
}

// recall is Get in memory.
func (tb Table) recall(component, job string) *Stored {
	all, err := tb.memory.List(context.Background())
	require.NoError(tb.T, err)
	for _, s := range all {
		if s.ComponentName == component && s.JobName == job {
			status := "UNLOCKED"
			if s.Locked {
				status = "LOCKED"
			}
			return &Stored{
				ComponentID: sql.NullString{String: s.Holder.ComponentID, Valid: true},
				JobID:       sql.NullString{String: s.Holder.JobID, Valid: true},
				Status:      sql.NullString{String: status, Valid: true},
				Enabled:     sql.NullBool{Bool: s.Enabled, Valid: true},
				LockTime:    sql.NullTime{Time: s.Holder.LockTime, Valid: true},
			}
		}
	}
	return nil
}

// Fields returns all of the row but lock_time.
func (s Stored) Fields() Row {
	null := func(valid bool, v any) any {
		if !valid {
			return nil
		}
		return v
	}
	return Row{
		ComponentID: null(s.ComponentID.Valid, s.ComponentID.String),
		JobID:       null(s.JobID.Valid, s.JobID.String),
		Enabled:     null(s.Enabled.Valid, s.Enabled.Bool),
		Status:      null(s.Status.Valid, s.Status.String),
	}
}

// Plain returns the row without the suffix of the component ID of a tick.
func (r Row) Plain() Row {
	if id, ok := r.ComponentID.(string); ok {
		r.ComponentID, _, _ = strings.Cut(id, "/")
	}
	return r
}

// LongPast is the lock_time of a row that nobody has locked.
var LongPast = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)

// LockTime returns the lock_time of the row of the job.
func (tb Table) LockTime() time.Time { return tb.Get(Component, Job).LockTime.Time }
