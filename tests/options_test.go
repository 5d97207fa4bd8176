package tests

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func TestTheTableMayHaveAnyName(t *testing.T) {
	names := []string{
		"Keys", "my locks", `say "locks"`, "my.locks", "select", "ß🔒", "{locks}", "$1 ?1 %s", "'; DROP TABLE locks; --", `\`,
		strings.Repeat("l", 63), strings.Repeat("é", 31),
	}
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		for i, name := range names {
			for _, schema := range []string{"", name} {
				if e.CockroachDB() && schema != "" {
					continue // it keeps schemas from test to test
				}
				t.Run(fmt.Sprintf("name %d, schema %t", i, schema != ""), func(t *testing.T) { // SQLite can't have all of them in a path
					tb := all.With(t)
					tb.Lock()
					tb.Remove()
					table := quoted(name)
					if schema != "" {
						if e.SQLite() {
							schema = "main"
						} else {
							_, err := tb.Exec("DROP SCHEMA IF EXISTS " + quoted(schema) + " CASCADE")
							require.NoError(t, err)
							_, err = tb.Exec("CREATE SCHEMA " + quoted(schema))
							require.NoError(t, err)
						}
						table = quoted(schema) + "." + table
					}
					_, err := tb.Exec("DROP TABLE IF EXISTS " + table)
					require.NoError(t, err)
					l, err := lock.NewWith(tb.DB, lock.Options{Table: name, Schema: schema})
					require.NoError(t, err)
					everyCall(t, l)

					// Beside the table locks, none of its locks is seen.
					plain := tb.Lock()
					require.NoError(t, l.Disable(component, job))
					require.NoError(t, plain.Lock(component, "a", job, "1", 0))
					all, err := plain.List(t.Context())
					require.NoError(t, err)
					require.Len(t, all, 1)
					require.NoError(t, l.Enable(component, job))
					require.NoError(t, l.Lock(component, "b", job, "2", 0))
					require.NoError(t, plain.Unlock(component, "a", job, "1"))
					var status string
					require.NoError(t, tb.QueryRow("SELECT status FROM "+table).Scan(&status))
					require.Equal(t, "LOCKED", status)
					require.Equal(t, "UNLOCKED", tb.Get(component, job).Status.String)
					lease := acquire(t, plain, as("a", "1"))
					tx := inTx(t, tb.DB)
					require.NoError(t, lease.Check(t.Context(), tx))
				})
			}
		}
	})
}

// everyCall makes every call there is.
func everyCall(t *testing.T, l *lock.Lock) {
	require.NoError(t, l.Lock(component, "a", job, "1", time.Hour))
	require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(component, "b", job, "2", time.Hour))
	require.NoError(t, l.Unlock(component, "a", job, "1"))
	j := as("a", thisTick)
	j.Once = true
	lease := acquire(t, l, j)
	require.NoError(t, lease.Renew(t.Context()))
	s, err := l.Status(t.Context(), component, job)
	require.NoError(t, err)
	require.True(t, s.Locked)
	require.NoError(t, l.ForceRelease(t.Context(), component, job, s.Holder))
	require.ErrorIs(t, lease.Renew(t.Context()), lock.ErrLost)
	_, err = l.Acquire(t.Context(), j)
	require.IsType(t, &lock.ErrAlreadyRun{}, err)
	require.NoError(t, acquire(t, l, as("a", "2")).Release(t.Context()))
	all, err := l.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
}

func TestASchemaAloneIsThatOfTheTableLocks(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		query := "SELECT current_schema()"
		if e.SQLite() {
			query = "SELECT 'main'"
		}
		var schema string
		require.NoError(t, tb.QueryRow(query).Scan(&schema))
		l, err := lock.NewWith(tb.DB, lock.Options{Schema: schema})
		require.NoError(t, err)
		require.NoError(t, l.Lock(component, "a", job, "1", 0))
		require.Equal(t, dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields())
	})
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for says, wrong := range map[string]lock.Options{
		`the table, "a\x00"`:                      {Table: "a\x00"},
		`the table, "a\xff", has a NUL or is not`: {Table: "a\xff"},
		`the schema, "\x00"`:                      {Schema: "\x00"},
		"longer than 63 bytes":                    {Table: strings.Repeat("l", 64)},
		"of the schema":                           {Schema: strings.Repeat("é", 32), Table: "locks"},
		"Attempts:-1":                             {Retry: lock.RetryPolicy{Attempts: -1}},
		" Backoff:-1ns":                           {Retry: lock.RetryPolicy{Backoff: -1}},
		"MaxBackoff:-1s":                          {Retry: lock.RetryPolicy{MaxBackoff: -time.Second}},
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

func TestNoDDL(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l, err := lock.NewWith(tb.DB, lock.Options{NoDDL: true})
		require.NoError(t, err)
		_, acquired := l.Acquire(t.Context(), as("a", "1"))
		_, listed := l.List(t.Context())
		for call, err := range map[string]error{
			"Lock": l.Lock(component, "a", job, "1", 0), "Unlock": l.Unlock(component, "a", job, "1"),
			"Enable": l.Enable(component, job), "Disable": l.Disable(component, job), "Acquire": acquired,
		} {
			notRefused(t, err, call, "locks", "NoDDL")
			driverCode(t, e, err)
		}
		require.ErrorContains(t, listed, "NoDDL")
		require.Error(t, tb.QueryRow("SELECT count(*) FROM locks").Scan(new(int)), "there is no table")

		tb.Lock()
		everyCall(t, l)
	})
}

func TestTheRetryPolicyIsHeeded(t *testing.T) {
	t.Run("one attempt", func(t *testing.T) {
		db, mock, err := sqlmock.New()
		require.NoError(t, err)
		defer db.Close()
		l, err := lock.NewWith(db, lock.Options{NoDDL: true, Retry: lock.RetryPolicy{Attempts: 1}})
		require.NoError(t, err)
		mock.ExpectQuery("locks").WillReturnError(state("40001"))
		require.ErrorIs(t, l.Lock(component, "a", job, "1", 0), state("40001"))
		mock.ExpectExec("locks").WillReturnError(state("40001"))
		require.ErrorIs(t, l.Enable(component, job), state("40001"))
		require.NoError(t, mock.ExpectationsWereMet())
	})
	t.Run("three attempts", func(t *testing.T) {
		db, mock, err := sqlmock.New()
		require.NoError(t, err)
		defer db.Close()
		policy := lock.RetryPolicy{Attempts: 3, Backoff: 20 * time.Millisecond, MaxBackoff: 30 * time.Millisecond}
		l, err := lock.NewWith(db, lock.Options{NoDDL: true, Retry: policy})
		require.NoError(t, err)
		for range 3 {
			mock.ExpectQuery("locks").WillReturnError(state("40001"))
		}
		begun := time.Now()
		require.ErrorIs(t, l.Lock(component, "a", job, "1", 0), state("40001"))
		require.GreaterOrEqual(t, time.Since(begun), 10*time.Millisecond+15*time.Millisecond)
		require.NoError(t, mock.ExpectationsWereMet())
		for range 2 {
			mock.ExpectQuery("locks").WillReturnError(state("40001"))
		}
		mock.ExpectQuery("locks").WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.Granted()...))
		require.NoError(t, l.Lock(component, "a", job, "1", 0))
		require.NoError(t, mock.ExpectationsWereMet())
	})
}

// TestTheZeroOptionsAreThoseOfNew: they ask the database the same.
func TestTheZeroOptionsAreThoseOfNew(t *testing.T) {
	asked := func(make func(lock.Storage) *lock.Lock) (texts []string) {
		l := make(dbtest.Storage{
			OnExec: func(query string) error { texts = append(texts, query); return nil },
			OnQueryRow: func(query string) *sql.Row {
				texts = append(texts, query)
				return nil
			},
		})
		l.Lock(component, "a", job, "1", 0)
		l.Unlock(component, "a", job, "1")
		l.Enable(component, job)
		l.Disable(component, job)
		j := as("a", "1")
		l.Acquire(t.Context(), j)
		j.Once = true
		l.Acquire(t.Context(), j)
		l.Status(t.Context(), component, job)
		return texts
	}
	texts := asked(lock.New)
	require.Len(t, texts, 8)
	require.Equal(t, texts, asked(func(s lock.Storage) *lock.Lock {
		l, err := lock.NewWith(s, lock.Options{})
		require.NoError(t, err)
		return l
	}))
}

// What the observer and the logger are told.

// An observation is what is certain of an event.
type observation struct {
	kind                lock.EventKind
	call                string
	componentID, jobID  string
	holder              string // component ID/job ID
	token, held, failed bool   // whether there is one
}

type observer struct {
	mu     sync.Mutex
	events []lock.Event
}

func (o *observer) observe(_ context.Context, e lock.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
}

// take returns what has been observed since the last time.
func (o *observer) take() []lock.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	events := o.events
	o.events = nil
	return events
}

// scripted is a day in the life of a lock, and what is to be observed of each of its steps.
var scripted = []struct {
	name string
	do   func(tb dbtest.Table, l *lock.Lock, s *leases)
	want []observation
	sql  bool // only where there is a database
}{
	{name: "Lock", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.NoError(tb.T, l.Lock(component, "a", job, "1", time.Hour))
	}, want: []observation{{lock.Acquired, "Lock", "a", "1", "", true, false, false}}},
	{name: "Lock again", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.NoError(tb.T, l.Lock(component, "a", job, "1", time.Hour))
	}, want: []observation{{lock.Acquired, "Lock", "a", "1", "", true, false, false}}},
	{name: "Lock, refused", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.Error(tb.T, l.Lock(component, "b", job, "2", time.Hour))
	}, want: []observation{{lock.Refused, "Lock", "b", "2", "a/1", false, false, true}}},
	{name: "Unlock, refused", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.Error(tb.T, l.Unlock(component, "b", job, "2"))
	}, want: []observation{{lock.Refused, "Unlock", "b", "2", "a/1", false, false, true}}},
	{name: "Lock, taken over", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		tb.Age(2 * time.Hour)
		require.NoError(tb.T, l.Lock(component, "b", job, "2", time.Hour))
	}, want: []observation{{lock.TakenOver, "Lock", "b", "2", "a/1", true, false, false}}},
	{name: "Unlock", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.NoError(tb.T, l.Unlock(component, "b", job, "2"))
	}, want: []observation{{lock.Released, "Unlock", "b", "2", "", false, false, false}}},
	{name: "Unlock of a free lock", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.NoError(tb.T, l.Unlock(component, "b", job, "2"))
	}, want: []observation{{lock.Released, "Unlock", "b", "2", "", false, false, false}}},
	{name: "Disable, Lock, Enable", do: func(tb dbtest.Table, l *lock.Lock, _ *leases) {
		require.NoError(tb.T, l.Disable(component, job))
		require.Error(tb.T, l.Lock(component, "a", job, "1", time.Hour))
		require.NoError(tb.T, l.Enable(component, job))
	}, want: []observation{
		{lock.Disabled, "Disable", "", "", "", false, false, false},
		{lock.Refused, "Lock", "a", "1", "b/2", false, false, true},
		{lock.Enabled, "Enable", "", "", "", false, false, false},
	}},
	{name: "Acquire", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		s.first = acquire(tb.T, l, as("a", "3"))
	}, want: []observation{{lock.Acquired, "Acquire", "a", "3", "", true, false, false}}},
	{name: "Acquire, refused", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		_, err := l.Acquire(tb.T.Context(), as("b", "4"))
		require.Error(tb.T, err)
	}, want: []observation{{lock.Refused, "Acquire", "b", "4", "a/3", false, false, true}}},
	{name: "Acquire, already run", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		j := as("b", "3")
		j.Once = true
		_, err := l.Acquire(tb.T.Context(), j)
		require.Error(tb.T, err)
	}, want: []observation{{lock.Refused, "Acquire", "b", "3", "a/3", false, false, true}}},
	{name: "Renew", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.NoError(tb.T, s.first.Renew(tb.T.Context()))
	}, want: []observation{{lock.Renewed, "Renew", "a", "3", "", true, true, false}}},
	{name: "Acquire, taken over", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		tb.Age(2 * time.Hour)
		s.second = acquire(tb.T, l, as("b", "4"))
	}, want: []observation{{lock.TakenOver, "Acquire", "b", "4", "a/3", true, false, false}}},
	{name: "Renew, lost", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.Error(tb.T, s.first.Renew(tb.T.Context()))
	}, want: []observation{{lock.Lost, "Renew", "a", "3", "", true, true, true}}},
	{name: "Renew, lost already", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.Error(tb.T, s.first.Renew(tb.T.Context()))
	}},
	{name: "Release, lost", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.Error(tb.T, s.first.Release(tb.T.Context()))
	}, want: []observation{{lock.Refused, "Release", "a", "3", "b/4", true, true, true}}},
	{name: "Release", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.NoError(tb.T, s.second.Release(tb.T.Context()))
	}, want: []observation{{lock.Released, "Release", "b", "4", "", true, true, false}}},
	{name: "Release again", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.NoError(tb.T, s.second.Release(tb.T.Context()))
	}},
	{name: "ForceRelease", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		require.NoError(tb.T, l.Lock(component, "a", job, "5", time.Hour))
		require.Error(tb.T, l.ForceRelease(tb.T.Context(), component, job, lock.Holder{ComponentID: "x", JobID: "y"}))
		require.NoError(tb.T, l.ForceRelease(tb.T.Context(), component, job, lock.Holder{ComponentID: "a", JobID: "5"}))
	}, want: []observation{
		{lock.Acquired, "Lock", "a", "5", "", true, false, false},
		{lock.Refused, "ForceRelease", "x", "y", "a/5", false, false, true},
		{lock.Released, "ForceRelease", "a", "5", "", false, false, false},
	}},
	{name: "what only looks, and what is not asked", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		_, err := l.Status(tb.T.Context(), component, job)
		require.NoError(tb.T, err)
		_, err = l.List(tb.T.Context())
		require.NoError(tb.T, err)
		require.Error(tb.T, l.Lock(component, "\x00", job, "1", 0))
		require.Error(tb.T, l.Lock(component, "a", job, "1", -1))
	}},
	{name: "calls that fail", do: func(tb dbtest.Table, l *lock.Lock, s *leases) {
		s.first = acquire(tb.T, l, as("a", "6"))
		_, err := tb.Exec("ALTER TABLE locks RENAME TO keys")
		require.NoError(tb.T, err)
		require.Error(tb.T, l.Lock(component, "b", job, "7", time.Hour))
		require.Error(tb.T, l.Unlock(component, "b", job, "7"))
		require.Error(tb.T, l.Enable(component, job))
		_, err = l.Acquire(tb.T.Context(), as("b", "7"))
		require.Error(tb.T, err)
		require.Error(tb.T, s.first.Renew(tb.T.Context()))
		require.Error(tb.T, s.first.Release(tb.T.Context()))
	}, sql: true, want: []observation{
		{lock.Acquired, "Acquire", "a", "6", "", true, false, false},
		{lock.Failed, "Lock", "b", "7", "", false, false, true},
		{lock.Failed, "Unlock", "b", "7", "", false, false, true},
		{lock.Failed, "Enable", "", "", "", false, false, true},
		{lock.Failed, "Acquire", "b", "7", "", false, false, true},
		{lock.Failed, "Renew", "a", "6", "", true, true, true},
		{lock.Failed, "Release", "a", "6", "", true, true, true},
	}},
}

type leases struct{ first, second *lock.Lease }

func TestTheObserverIsToldWhatHappens(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		var (
			o observer
			s leases
		)
		l := tb.LockWith(lock.Options{NoDDL: true, Observer: o.observe})
		for _, step := range scripted {
			if step.sql && e.Memory() {
				continue
			}
			tokens := map[string]int64{}
			step.do(tb, l, &s)
			var got []observation
			for _, e := range o.take() {
				require.Equal(t, []string{component, job}, []string{e.ComponentName, e.JobName})
				holder := ""
				if e.Holder != (lock.Holder{}) {
					holder = e.Holder.ComponentID + "/" + e.Holder.JobID
					require.False(t, e.Holder.Since.IsZero())
					if e.Kind == lock.TakenOver {
						require.Greater(t, e.Holder.Age, time.Hour, "of the holder that was, not of the one that is")
					}
				}
				require.NotZero(t, e.Took+e.Held)
				switch e.Call {
				case "Lock", "Acquire", "Renew", "Release":
					require.Equal(t, time.Hour, e.MaxDuration)
				default:
					require.Zero(t, e.MaxDuration)
				}
				if e.Err != nil && e.Kind != lock.Lost {
					dbtest.Fails("lock: "+e.Call)(t, e.Err)
				}
				tokens[e.Call] = e.Token
				got = append(got, observation{e.Kind, e.Call, e.ComponentID, e.JobID, holder, e.Token != 0, e.Held != 0, e.Err != nil})
			}
			require.Equal(t, step.want, got, step.name)
			switch step.name {
			case "Lock", "Lock again", "Lock, taken over":
				require.Equal(t, tb.LockTime().UnixMicro(), tokens["Lock"])
			case "Renew", "Renew, lost", "Release, lost":
				for _, token := range tokens {
					require.Equal(t, s.first.Token(), token)
				}
			case "Acquire, taken over", "Release":
				for _, token := range tokens {
					require.Equal(t, s.second.Token(), token)
				}
			}
		}
	})
}

func TestWhatIsLostIsTheCauseThatIsObserved(t *testing.T) {
	tb := dbtest.NewTable(t, engines[0])
	var o observer
	j := as("a", "1")
	j.MaxDuration, j.Margin = 2*time.Second, 1500*time.Millisecond
	d := &detour{DB: tb.DB}
	l, err := lock.NewWith(d, lock.Options{Observer: o.observe})
	require.NoError(t, err)
	d.fails(t, false)
	lease := acquire(t, l, j)
	<-lease.Context().Done()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(o.take(), func(e lock.Event) bool {
			return e.Kind == lock.Lost && errors.Is(e.Err, lock.ErrLost) && e.Err == context.Cause(lease.Context())
		})
	}, 10*time.Second, time.Millisecond)
}

func TestTheObserverIsGivenTheContextOfTheCall(t *testing.T) {
	type key struct{}
	var told []string
	l, err := lock.NewWith(dbtest.NewTable(t, engines[0]).DB, lock.Options{Observer: func(ctx context.Context, e lock.Event) {
		told = append(told, fmt.Sprint(e.Call, " ", e.Kind, ": ", ctx.Value(key{})))
	}})
	require.NoError(t, err)
	in := func(what string) context.Context { return context.WithValue(t.Context(), key{}, what) }

	require.NoError(t, l.Lock(component, "a", job, "1", 0))
	require.NoError(t, l.UnlockContext(in("a request"), component, "a", job, "1"))
	lease, err := l.Acquire(in("a term"), as("a", "2"))
	require.NoError(t, err)
	require.NoError(t, lease.Renew(in("by hand")))
	require.NoError(t, l.ForceRelease(in("an operator"), component, job, lock.Holder{ComponentID: "a", JobID: "2"}))
	require.ErrorIs(t, lease.Renew(in("too late")), lock.ErrLost)
	require.Equal(t, []string{
		"Lock acquired: <nil>",
		"Unlock released: a request",
		"Acquire acquired: a term",
		"Renew renewed: by hand",
		"ForceRelease released: an operator",
		"Renew lost: a term",
	}, told)
}

func TestTheLoggerIsToldWhatHappens(t *testing.T) {
	levels := map[lock.EventKind]string{
		lock.Lost: "ERROR", lock.TakenOver: "WARN", lock.Failed: "WARN", lock.Refused: "DEBUG", lock.Renewed: "DEBUG",
		lock.Acquired: "INFO", lock.Released: "INFO", lock.Enabled: "INFO", lock.Disabled: "INFO",
	}
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		var (
			s   leases
			out bytes.Buffer
		)
		logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		l := tb.LockWith(lock.Options{NoDDL: true, Logger: logger})
		for _, step := range scripted {
			if step.sql && e.Memory() {
				continue
			}
			out.Reset()
			step.do(tb, l, &s)
			lines := json.NewDecoder(&out)
			for _, want := range step.want {
				var got map[string]any
				require.NoError(t, lines.Decode(&got), step.name)
				require.Equal(t, levels[want.kind], got["level"])
				require.Equal(t, "lock "+string(want.kind), got["msg"])
				for _, attr := range []struct {
					name  string
					there bool
					value any // nil: any
				}{
					{"time", true, nil}, {"level", true, nil}, {"msg", true, nil},
					{"call", true, want.call}, {"component", true, component}, {"job", true, job},
					{"component_id", want.componentID != "", want.componentID}, {"job_id", want.jobID != "", want.jobID},
					{"token", want.token, nil}, {"took", true, nil}, {"held", want.held, nil},
					{"error", want.failed, nil}, {"holder", want.holder != "", nil},
				} {
					value, there := got[attr.name]
					require.Equal(t, attr.there, there, "%s: %s", step.name, attr.name)
					if there && attr.value != nil {
						require.Equal(t, attr.value, value)
					}
					delete(got, attr.name)
					if there && attr.name == "holder" {
						holder := value.(map[string]any)
						require.Equal(t, want.holder, holder["component_id"].(string)+"/"+holder["job_id"].(string))
						require.Contains(t, holder, "since")
					}
				}
				require.Empty(t, got, "what else?")
			}
			require.False(t, lines.More(), step.name)
		}
	})
}

func TestALogAsPeopleReadIt(t *testing.T) {
	tb := dbtest.NewTable(t, engines[0])
	var out bytes.Buffer
	l, err := lock.NewWith(tb.DB, lock.Options{Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if slices.Contains([]string{slog.TimeKey, "took", "token", "since"}, a.Key) {
				return slog.Attr{}
			}
			return a
		},
	}))})
	require.NoError(t, err)
	require.NoError(t, l.Lock(component, "a", job, "1", time.Hour))
	require.Error(t, l.Lock(component, "b", job, "2", time.Hour)) // for debugging only
	tb.Age(2 * time.Hour)
	require.NoError(t, l.Lock(component, "b", job, "2", time.Hour))
	require.NoError(t, l.Disable(component, job))
	require.NoError(t, l.Unlock(component, "b", job, "2"))
	require.Equal(t, `level=INFO msg="lock acquired" call=Lock component=shop job=backup component_id=a job_id=1
level=WARN msg="lock taken over" call=Lock component=shop job=backup component_id=b job_id=2 holder.component_id=a holder.job_id=1
level=INFO msg="lock disabled" call=Disable component=shop job=backup
level=INFO msg="lock released" call=Unlock component=shop job=backup component_id=b job_id=2
`, out.String())
}
