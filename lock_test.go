package lock_test

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// The documented API, symbol by symbol: this compiles as long as nothing of it has changed.
var (
	_ func(lock.Storage) *lock.Lock                                               = lock.New
	_ func(*lock.Lock, string, string) error                                      = (*lock.Lock).Disable
	_ func(*lock.Lock, string, string) error                                      = (*lock.Lock).Enable
	_ func(*lock.Lock, string, string, string, string, time.Duration) error       = (*lock.Lock).Lock
	_ func(*lock.Lock, string, string, string, string) error                      = (*lock.Lock).Unlock
	_ func() *lock.LocalLock                                                      = lock.NewLocalLock
	_ func(*lock.LocalLock) error                                                 = (*lock.LocalLock).Lock
	_ func(*lock.LocalLock) error                                                 = (*lock.LocalLock).Unlock
	_ func(*lock.NoopLocker, string, string) error                                = (*lock.NoopLocker).Disable
	_ func(*lock.NoopLocker, string, string) error                                = (*lock.NoopLocker).Enable
	_ func(*lock.NoopLocker, string, string, string, string, time.Duration) error = (*lock.NoopLocker).Lock
	_ func(*lock.NoopLocker, string, string, string, string) error                = (*lock.NoopLocker).Unlock
	_ func(*lock.ErrDisabled) string                                              = (*lock.ErrDisabled).Error
	_ func(*lock.ErrUnauthorised) string                                          = (*lock.ErrUnauthorised).Error
	_                                                                             = struct{}(lock.NoopLocker{})

	_ error = &lock.ErrDisabled{}
	_ error = &lock.ErrUnauthorised{}

	// Exactly these two methods, or types that have them would no longer fit.
	_ lock.Storage = interface {
		Exec(query string, args ...interface{}) (sql.Result, error)
		QueryRow(query string, args ...interface{}) *sql.Row
	}(nil)
	_ lock.Storage = (*sql.DB)(nil)
	_ lock.Storage = (*sql.Tx)(nil)
	_ lock.Storage = struct{ *sql.DB }{}
	_ lock.Storage = connStorage{}
)

// connStorage makes a Storage of the one connection of a *sql.Conn, which has no calls without a context.
type connStorage struct{ *sql.Conn }

func (c connStorage) Exec(query string, args ...interface{}) (sql.Result, error) {
	return c.ExecContext(context.Background(), query, args...)
}

func (c connStorage) QueryRow(query string, args ...interface{}) *sql.Row {
	return c.QueryRowContext(context.Background(), query, args...)
}

// A row of the table, as a test writes and reads it. nil is NULL.
type row struct {
	componentID, jobID, enabled, status any
	age                                 any // how long before the database's now the lock_time is, a time.Duration
}

// The component and the job of the specification. The caller is component ID a, job ID 1.
const (
	component = "shop"
	job       = "backup"
)

// table reads and writes the row of the job.
type table struct {
	t testing.TB
	e engine
	*sql.DB
	dsn string
}

func newTable(t testing.TB, e engine) table {
	if e.memory() {
		e.local, e.clock = locktest.New()
		return table{t: t, e: e}
	}
	dsn := e.dsn(t)
	return table{t: t, e: e, DB: e.openDSN(t, dsn), dsn: dsn}
}

// lock returns a Lock on the table.
func (tb table) lock() *lock.Lock {
	if tb.e.memory() {
		return tb.e.local
	}
	return lock.New(tb.DB)
}

// with is the table for a test within the test.
func (tb table) with(t testing.TB) table {
	tb.t = t
	return tb
}

// lockWith returns a Lock on the table with options.
func (tb table) lockWith(o lock.Options) *lock.Lock {
	if tb.e.memory() {
		*tb.e.local = *lock.NewLocalWith(tb.e.clock.Now, o)
		return tb.e.local
	}
	l, err := lock.NewWith(tb.DB, o)
	require.NoError(tb.t, err)
	return l
}

func (tb table) now() time.Time {
	if tb.e.memory() {
		return tb.e.clock.Now().UTC().Truncate(time.Microsecond)
	}
	query := "SELECT clock_timestamp()"
	if tb.e.sqlite() {
		query = "SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
	}
	var v any
	require.NoError(tb.t, tb.QueryRow(query).Scan(&v))
	if ms, ok := v.(int64); ok {
		return time.UnixMilli(ms).UTC()
	}
	return v.(time.Time).UTC()
}

// timestamp is a lock_time as the database takes it.
func (tb table) timestamp(at time.Time) any {
	if tb.e.sqlite() {
		return at.Format("2006-01-02 15:04:05.000000+00:00")
	}
	return at
}

// canHold says whether such a row can be: in memory there are no NULLs, and no status but two.
func (tb table) canHold(r row) bool {
	if !tb.e.memory() || r == (row{}) {
		return true
	}
	_, hasAge := r.age.(time.Duration)
	return hasAge && r.componentID != nil && r.jobID != nil && r.enabled != nil && (r.status == "LOCKED" || r.status == "UNLOCKED")
}

func (tb table) put(r row) {
	if tb.e.memory() {
		tb.remove()
		age := r.age.(time.Duration)
		tb.e.clock.Advance(-age)
		require.NoError(tb.t, tb.e.local.Lock(component, r.componentID.(string), job, r.jobID.(string), 0))
		tb.e.clock.Advance(age)
		if r.status == "UNLOCKED" {
			require.NoError(tb.t, tb.e.local.Unlock(component, r.componentID.(string), job, r.jobID.(string)))
		}
		if r.enabled == false {
			require.NoError(tb.t, tb.e.local.Disable(component, job))
		}
		return
	}
	var lockTime any
	if age, ok := r.age.(time.Duration); ok {
		lockTime = tb.timestamp(tb.now().Add(-age))
	}
	_, err := tb.Exec(`INSERT INTO locks (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (component_name, job_name) DO UPDATE SET component_id = excluded.component_id, job_id = excluded.job_id,
enabled = excluded.enabled, status = excluded.status, lock_time = excluded.lock_time`,
		component, r.componentID, job, r.jobID, r.enabled, r.status, lockTime)
	require.NoError(tb.t, err)
}

// age makes the row of the job older.
func (tb table) age(by time.Duration) {
	if tb.e.memory() {
		tb.e.clock.Advance(by)
		return
	}
	lockTime := tb.get(component, job).lockTime.Time.Add(-by)
	_, err := tb.Exec("UPDATE locks SET lock_time = $1 WHERE component_name = $2 AND job_name = $3", tb.timestamp(lockTime), component, job)
	require.NoError(tb.t, err)
}

func (tb table) remove() {
	if tb.e.memory() {
		*tb.e.local = *lock.NewLocal(tb.e.clock.Now)
		return
	}
	_, err := tb.Exec("DELETE FROM locks")
	require.NoError(tb.t, err)
}

// stored is what a row holds.
type stored struct {
	componentID, jobID, status sql.NullString
	enabled                    sql.NullBool
	lockTime                   sql.NullTime
}

// get returns the row of a job, nil if there is none. It reads all columns in order, as clients of the 2018 package do.
func (tb table) get(component, job string) *stored {
	if tb.e.memory() {
		return tb.recall(component, job)
	}
	var (
		s                stored
		component2, job2 string
	)
	err := tb.QueryRow("SELECT * FROM locks WHERE component_name = $1 AND job_name = $2", component, job).
		Scan(&component2, &s.componentID, &job2, &s.jobID, &s.enabled, &s.status, &s.lockTime)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	require.NoError(tb.t, err)
	require.Equal(tb.t, []string{component, job}, []string{component2, job2})
	s.lockTime.Time = s.lockTime.Time.UTC()
	return &s
}

// recall is get in memory.
func (tb table) recall(component, job string) *stored {
	all, err := tb.e.local.List(context.Background())
	require.NoError(tb.t, err)
	for _, s := range all {
		if s.ComponentName == component && s.JobName == job {
			status := "UNLOCKED"
			if s.Locked {
				status = "LOCKED"
			}
			return &stored{
				componentID: sql.NullString{String: s.Holder.ComponentID, Valid: true},
				jobID:       sql.NullString{String: s.Holder.JobID, Valid: true},
				status:      sql.NullString{String: status, Valid: true},
				enabled:     sql.NullBool{Bool: s.Enabled, Valid: true},
				lockTime:    sql.NullTime{Time: s.Holder.Since, Valid: true},
			}
		}
	}
	return nil
}

// fields is all of the row but lock_time.
func (s stored) fields() row {
	null := func(valid bool, v any) any {
		if !valid {
			return nil
		}
		return v
	}
	return row{
		componentID: null(s.componentID.Valid, s.componentID.String),
		jobID:       null(s.jobID.Valid, s.jobID.String),
		enabled:     null(s.enabled.Valid, s.enabled.Bool),
		status:      null(s.status.Valid, s.status.String),
	}
}

var longPast = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)

// What is expected of a call: its answer, and the row after it.
type (
	answer func(t testing.TB, err error)
	after  func(t testing.TB, before, now *stored, asked, answered time.Time)
)

func granted(t testing.TB, err error) { require.NoError(t, err) }

func disabled(t testing.TB, err error) {
	require.IsType(t, &lock.ErrDisabled{}, err)
	var e *lock.ErrDisabled
	require.ErrorAs(t, err, &e)
	require.Equal(t, []string{component, job}, []string{e.ComponentName(), e.JobName()})
	for _, part := range []string{`"shop"`, `"backup"`, "disabled"} {
		require.ErrorContains(t, err, part)
	}
}

func refusedBy(componentID, jobID string) answer {
	return func(t testing.TB, err error) {
		require.IsType(t, &lock.ErrUnauthorised{}, err)
		var e *lock.ErrUnauthorised
		require.ErrorAs(t, err, &e)
		require.Equal(t, []string{component, job}, []string{e.ComponentName(), e.JobName()})
		require.Equal(t, []string{componentID, jobID}, []string{e.Holder().ComponentID, e.Holder().JobID})
		for _, part := range []string{`"shop"`, `"backup"`, `component ID "a", job ID "1"`,
			`component ID "` + componentID + `", job ID "` + jobID + `"`} {
			require.ErrorContains(t, err, part)
		}
	}
}

func fails(parts ...string) answer {
	return func(t testing.TB, err error) {
		for _, part := range append(parts, `"shop"`, `"backup"`) {
			require.ErrorContains(t, err, part)
		}
	}
}

func unchanged(t testing.TB, before, now *stored, _, _ time.Time) { require.Equal(t, before, now) }

// taken: locked by the caller, by the clock of the database.
func taken(t testing.TB, _, now *stored, asked, answered time.Time) {
	require.NotNil(t, now)
	require.Equal(t, row{componentID: "a", jobID: "1", enabled: true, status: "LOCKED"}, now.fields())
	require.False(t, now.lockTime.Time.Before(asked), "%v is before %v", now.lockTime.Time, asked)
	require.False(t, now.lockTime.Time.After(answered), "%v is after %v", now.lockTime.Time, answered)
}

// takenAbove: locked by the caller, just after the lock_time before, which the clock has not reached.
func takenAbove(t testing.TB, before, now *stored, _, _ time.Time) {
	require.Equal(t, row{componentID: "a", jobID: "1", enabled: true, status: "LOCKED"}, now.fields())
	require.Equal(t, before.lockTime.Time.Add(time.Microsecond), now.lockTime.Time)
}

// becomes: the row has these fields, and the lock_time that it had.
func becomes(r row) after {
	return func(t testing.TB, before, now *stored, _, _ time.Time) {
		require.NotNil(t, now)
		require.Equal(t, r, now.fields())
		if before == nil {
			require.Equal(t, longPast, now.lockTime.Time)
		} else {
			require.Equal(t, before.lockTime, now.lockTime)
		}
	}
}

// specification is the table of DESIGN: every call, on every state of the row.
var specification = func() []specified {
	var (
		lockFor = func(d time.Duration) func(*lock.Lock) error {
			return func(l *lock.Lock) error { return l.Lock(component, "a", job, "1", d) }
		}
		unlock  = func(l *lock.Lock) error { return l.Unlock(component, "a", job, "1") }
		enable  = func(l *lock.Lock) error { return l.Enable(component, job) }
		disable = func(l *lock.Lock) error { return l.Disable(component, job) }

		minute = time.Minute
		years  = 100 * 365 * 24 * time.Hour
		free   = row{"b", "2", true, "UNLOCKED", minute}
		held   = row{"b", "2", true, "LOCKED", minute}
		mine   = row{"a", "1", true, "LOCKED", minute}
		none   = row{}
		with   = func(r row, change func(*row)) row { change(&r); return r }
		off    = func(r *row) { r.enabled = false }
		aged   = func(age any) func(*row) { return func(r *row) { r.age = age } }
		nulls  = row{age: "NULL"} // all columns but the key
	)
	return []specified{
		{"Lock of a missing row", none, lockFor(minute), granted, taken},
		{"Lock of a missing row, no longest duration", none, lockFor(0), granted, taken},
		{"Lock of a free row", free, lockFor(minute), granted, taken},
		{"Lock of a free row, no longest duration", free, lockFor(0), granted, taken},
		{"Lock of a free row of the caller's", with(mine, func(r *row) { r.status = "UNLOCKED" }), lockFor(minute), granted, taken},
		{"Lock of a free row from the future", with(free, aged(-time.Hour)), lockFor(minute), granted, takenAbove},

		{"Lock of a disabled free row", with(free, off), lockFor(minute), disabled, unchanged},
		{"Lock of a disabled row, for its holder", with(mine, off), lockFor(time.Hour), disabled, unchanged},
		{"Lock of a disabled row, for its holder, expired", with(mine, off), lockFor(time.Second), disabled, unchanged},
		{"Lock of a disabled row, held", with(held, off), lockFor(time.Hour), disabled, unchanged},
		{"Lock of a disabled row, expired", with(held, off), lockFor(time.Second), disabled, unchanged},

		{"Lock for the holder", mine, lockFor(time.Hour), granted, unchanged},
		{"Lock for the holder, no longest duration", with(mine, aged(years)), lockFor(0), granted, unchanged},
		{"Lock for the holder, expired", mine, lockFor(time.Second), granted, taken},
		{"Lock for the holder, from the future", with(mine, aged(-time.Hour)), lockFor(time.Second), granted, unchanged},
		{"Lock for another run of the holder", with(mine, func(r *row) { r.jobID = "2" }), lockFor(time.Hour), refusedBy("a", "2"), unchanged},
		{"Lock for another instance, same job ID", with(mine, func(r *row) { r.componentID = "b" }), lockFor(time.Hour), refusedBy("b", "1"), unchanged},

		{"Lock of a held row", held, lockFor(time.Hour), refusedBy("b", "2"), unchanged},
		{"Lock of a held row, the longest of durations", with(held, aged(years)), lockFor(math.MaxInt64), refusedBy("b", "2"), unchanged},
		{"Lock of a held row, no longest duration", with(held, aged(years)), lockFor(0), refusedBy("b", "2"), unchanged},
		{"Lock of a held row from the future", with(held, aged(-time.Hour)), lockFor(time.Nanosecond), refusedBy("b", "2"), unchanged},
		{"Lock of an expired row", held, lockFor(59 * time.Second), granted, taken},
		{"Lock of an expired row, the shortest of durations", held, lockFor(time.Nanosecond), granted, taken},
		{"Lock of an expired row of another run", with(mine, func(r *row) { r.jobID = "2" }), lockFor(time.Second), granted, taken},

		{"Lock for a negative duration", free, lockFor(-1), fails("Lock", "negative", "-1ns"), unchanged},
		{"Lock for the most negative duration", held, lockFor(math.MinInt64), fails("Lock", "negative"), unchanged},

		{"Lock of a row full of NULLs", nulls, lockFor(minute), granted, taken},
		{"Lock of a row with NULL IDs", with(held, func(r *row) { r.componentID, r.jobID = nil, nil }), lockFor(time.Hour), refusedBy("", ""), unchanged},
		{"Lock of a held row, enabled NULL", with(held, func(r *row) { r.enabled = nil }), lockFor(time.Hour), refusedBy("b", "2"), unchanged},
		{"Lock of an expired row, enabled NULL", with(held, func(r *row) { r.enabled = nil }), lockFor(time.Second), granted, taken},
		{"Lock of a row with status NULL", with(held, func(r *row) { r.status = nil }), lockFor(time.Hour), granted, taken},
		{"Lock of a held row with lock_time NULL", with(held, aged("NULL")), lockFor(math.MaxInt64), granted, taken},
		{"Lock of a held row with lock_time NULL, no longest duration", with(held, aged("NULL")), lockFor(0), refusedBy("b", "2"), unchanged},
		{"Lock of a row with a status of its own", with(held, func(r *row) { r.status = "PAUSED" }), lockFor(time.Hour), refusedBy("b", "2"), unchanged},

		{"Unlock of a missing row", none, unlock, granted, unchanged},
		{"Unlock of a free row", free, unlock, granted, unchanged},
		{"Unlock of a free row of the caller's", with(mine, func(r *row) { r.status = "UNLOCKED" }), unlock, granted, unchanged},
		{"Unlock of a row full of NULLs", nulls, unlock, granted, unchanged},
		{"Unlock by the holder", mine, unlock, granted, becomes(row{componentID: "a", jobID: "1", enabled: true, status: "UNLOCKED"})},
		{"Unlock by the holder, disabled", with(mine, off), unlock, granted, becomes(row{componentID: "a", jobID: "1", enabled: false, status: "UNLOCKED"})},
		{"Unlock by the holder, enabled NULL", with(mine, func(r *row) { r.enabled = nil }), unlock, granted, becomes(row{componentID: "a", jobID: "1", enabled: true, status: "UNLOCKED"})},
		{"Unlock by another", held, unlock, refusedBy("b", "2"), unchanged},
		{"Unlock by another, disabled", with(held, off), unlock, refusedBy("b", "2"), unchanged},
		{"Unlock by another run of the holder", with(mine, func(r *row) { r.jobID = "2" }), unlock, refusedBy("a", "2"), unchanged},
		{"Unlock by another, long past", with(held, aged(years)), unlock, refusedBy("b", "2"), unchanged},

		{"Enable of a missing row", none, enable, granted, becomes(row{componentID: "", jobID: "", enabled: true, status: "UNLOCKED"})},
		{"Enable of a disabled row", with(held, off), enable, granted, becomes(row{componentID: "b", jobID: "2", enabled: true, status: "LOCKED"})},
		{"Enable of an enabled row", free, enable, granted, unchanged},
		{"Enable of a row with NULLs", nulls, enable, granted, becomes(row{enabled: true})},
		{"Disable of a missing row", none, disable, granted, becomes(row{componentID: "", jobID: "", enabled: false, status: "UNLOCKED"})},
		{"Disable of a held row", held, disable, granted, becomes(row{componentID: "b", jobID: "2", enabled: false, status: "LOCKED"})},
		{"Disable of a free row", free, disable, granted, becomes(row{componentID: "b", jobID: "2", enabled: false, status: "UNLOCKED"})},
		{"Disable of a disabled row", with(free, off), disable, granted, unchanged},
		{"Disable of a row with NULLs", nulls, disable, granted, becomes(row{enabled: false})},
	}
}()

type specified struct {
	name  string
	given row // row{} is none
	call  func(*lock.Lock) error
	want  answer
	then  after
}

func TestSpecification(t *testing.T) {
	everywhere(t, func(t *testing.T, e engine) {
		all := newTable(t, e)
		l := all.lock()
		for _, s := range specification {
			if !all.canHold(s.given) {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				tb := all.with(t)
				tb.remove()
				if s.given != (row{}) {
					tb.put(s.given)
				}
				before := tb.get(component, job)
				asked := tb.now()
				err := s.call(l)
				answered := tb.now()
				s.want(t, err)
				s.then(t, before, tb.get(component, job), asked, answered)
			})
		}
	})
}

func TestTheHolderIsToldSinceWhen(t *testing.T) {
	everywhere(t, func(t *testing.T, e engine) {
		tb := newTable(t, e)
		l := tb.lock()
		tb.put(row{"b", "2", true, "LOCKED", time.Hour})
		var refusal *lock.ErrUnauthorised
		require.ErrorAs(t, l.Lock(component, "a", job, "1", 0), &refusal)
		since := tb.get(component, job).lockTime.Time
		require.Equal(t, since, refusal.Holder().Since)
		require.GreaterOrEqual(t, refusal.Holder().Age, time.Hour)
		require.LessOrEqual(t, refusal.Holder().Age, tb.now().Sub(since))
		require.ErrorContains(t, refusal, since.Format(time.RFC3339Nano))
	})
}

func TestALockConcernsItsRowOnly(t *testing.T) {
	everywhere(t, func(t *testing.T, e engine) {
		tb := newTable(t, e)
		l := tb.lock()
		require.NoError(t, l.Lock("c", "a", "j", "1", 0))
		require.NoError(t, l.Lock("c", "a", "k", "1", 0))
		require.NoError(t, l.Lock("d", "a", "j", "1", 0))
		require.NoError(t, l.Disable("c", "k"))
		require.NoError(t, l.Unlock("d", "a", "j", "1"))
		for _, want := range []struct {
			component, job, status string
			enabled                bool
		}{
			{"c", "j", "LOCKED", true}, {"c", "k", "LOCKED", false}, {"d", "j", "UNLOCKED", true},
		} {
			s := tb.get(want.component, want.job)
			require.Equal(t, row{"a", "1", want.enabled, want.status, nil}, s.fields())
		}
	})
}

func TestNamesAndIDsAreData(t *testing.T) {
	texts := map[string]string{
		"empty":   "",
		"quotes":  `'"` + "`" + `'; DROP TABLE locks; --`,
		"lines":   "a\r\n\tb\x01\x7f",
		"emoji":   "🔒\u0301é\u202e",
		"percent": "%s%_$1?1\\",
		"100 kB":  strings.Repeat("0123456789", 10_000),
	}
	everywhere(t, func(t *testing.T, e engine) {
		tb := newTable(t, e)
		l := tb.lock()
		for name, text := range texts {
			t.Run(name, func(t *testing.T) {
				require.NoError(t, l.Lock(text, text+"a", text, text+"1", time.Hour))
				require.Equal(t, row{text + "a", text + "1", true, "LOCKED", nil}, tb.get(text, text).fields())
				var refusal *lock.ErrUnauthorised
				require.ErrorAs(t, l.Lock(text, text+"b", text, text+"2", time.Hour), &refusal)
				require.Equal(t, []string{text + "a", text + "1"}, []string{refusal.Holder().ComponentID, refusal.Holder().JobID})
				require.Less(t, len(refusal.Error()), 3000, "a message is for reading")
				require.NoError(t, l.Disable(text, text))
				require.IsType(t, &lock.ErrDisabled{}, l.Lock(text, text+"a", text, text+"1", time.Hour))
				require.NoError(t, l.Enable(text, text))
				require.NoError(t, l.Unlock(text, text+"a", text, text+"1"))
			})
		}
	})
}

func TestWhatNoDatabaseCanHoldIsRefusedBeforeItIsAsked(t *testing.T) {
	l := lock.New(storage{
		exec: func(query string) error {
			require.Contains(t, query, "CREATE TABLE", "only New asks anything")
			return nil
		},
		queryRow: func(query string) *sql.Row { t.Errorf("asked: %s", query); return nil },
	})
	for _, bad := range []struct{ text, says string }{
		{"a\x00b", "NUL at byte 1"},
		{"a\xffb", "not valid UTF-8"},
	} {
		for what, call := range map[string]func() error{
			"component name": func() error { return l.Lock(bad.text, "a", "j", "1", 0) },
			"component ID":   func() error { return l.Lock("c", bad.text, "j", "1", 0) },
			"job name":       func() error { return l.Unlock("c", "a", bad.text, "1") },
			"job ID":         func() error { return l.Unlock("c", "a", "j", bad.text) },
		} {
			require.ErrorContains(t, call(), what)
			require.ErrorContains(t, call(), bad.says)
		}
		require.ErrorContains(t, l.Enable(bad.text, "j"), "component name")
		require.ErrorContains(t, l.Disable("c", bad.text), "job name")
	}
}

func TestEachAcquisitionIsLaterThanTheOneBefore(t *testing.T) {
	everywhere(t, func(t *testing.T, e engine) {
		tb := newTable(t, e)
		l := tb.lock()
		last := longPast
		acquired := func(jobID string, max time.Duration) {
			t.Helper()
			require.NoError(t, l.Lock(component, "a", job, jobID, max))
			now := tb.get(component, job).lockTime.Time
			require.True(t, now.After(last), "%v is not after %v", now, last)
			last = now
		}
		for range 50 {
			acquired("1", 0)
			require.NoError(t, l.Unlock(component, "a", job, "1"))
		}
		// The clock has been an hour ahead and has been put right.
		tb.put(row{"b", "2", true, "UNLOCKED", -time.Hour})
		last = tb.get(component, job).lockTime.Time
		for range 3 {
			acquired("1", 0)
			require.NoError(t, l.Unlock(component, "a", job, "1"))
		}
		// Takeovers, as fast as the clock allows.
		tb.put(row{"b", "2", true, "LOCKED", time.Hour})
		last = tb.get(component, job).lockTime.Time
		acquired("1", time.Minute)
	})
}

func TestTheClockOfTheClientDoesNotMatter(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e engine) {
		tb := newTable(t, e)
		lock.New(tb.DB)
		for _, age := range []time.Duration{time.Second, time.Hour} {
			tb.put(row{"b", "2", true, "LOCKED", age})
			// In the bubble it is the year 2000, for the client and its driver.
			synctest.Test(t, func(t *testing.T) {
				require.Equal(t, 2000, time.Now().Year())
				l := lock.New(e.openDSN(t, tb.dsn))
				asked := tb.now()
				err := l.Lock(component, "a", job, "1", time.Minute)
				if age < time.Minute {
					refusedBy("b", "2")(t, err)
				} else {
					granted(t, err)
					taken(t, nil, tb.get(component, job), asked, tb.now())
				}
			})
		}
	})
}

// storage is a Storage made of two functions.
type storage struct {
	exec     func(query string) error
	queryRow func(query string) *sql.Row
}

func (s storage) Exec(query string, _ ...interface{}) (sql.Result, error) { return nil, s.exec(query) }
func (s storage) QueryRow(query string, _ ...interface{}) *sql.Row        { return s.queryRow(query) }
