package tests

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// The modes of the two drivers for PostgreSQL.
var modes = []struct{ name, driver, param string }{
	{"lib_pq", "postgres", ""},
	{"lib_pq, binary_parameters", "postgres", "binary_parameters=yes"},
	{"pgx, cache_statement", "pgx", "default_query_exec_mode=cache_statement"},
	{"pgx, cache_describe", "pgx", "default_query_exec_mode=cache_describe"},
	{"pgx, describe_exec", "pgx", "default_query_exec_mode=describe_exec"},
	{"pgx, exec", "pgx", "default_query_exec_mode=exec"},
	{"pgx, simple_protocol", "pgx", "default_query_exec_mode=simple_protocol"},
}

// settings are settings of a role. If says is not "", the calls fail with an error that contains
// it.
var settings = []struct{ name, value, says string }{
	{"DateStyle", "'German'", ""},
	{"DateStyle", "'SQL, DMY'", ""},
	{"DateStyle", "'Postgres, MDY'", ""},
	{"IntervalStyle", "'sql_standard'", ""},
	{"IntervalStyle", "'iso_8601'", ""},
	{"TimeZone", "'Pacific/Kiritimati'", ""},
	{"TimeZone", "'America/St_Johns'", ""},
	{"default_transaction_isolation", "'repeatable read'", ""},
	{"default_transaction_isolation", "'serializable'", ""},
	{"default_transaction_deferrable", "on", ""},
	{"default_transaction_read_only", "on", "25006"},
	{"statement_timeout", "'30s'", ""},
	{"lock_timeout", "'30s'", ""},
	{"idle_in_transaction_session_timeout", "'1ms'", ""},
	{"plan_cache_mode", "'force_generic_plan'", ""},
	{"plan_cache_mode", "'force_custom_plan'", ""},
	{"standard_conforming_strings", "off", ""},
	{"extra_float_digits", "-15", ""},
	{"bytea_output", "'escape'", ""},
	{"search_path", "'elsewhere'", "42P01"},
	{"enable_seqscan", "off", ""},
	{"quote_all_identifiers", "on", ""},
	{"transform_null_equals", "on", ""},
	{"row_security", "off", ""},
	{"client_encoding", "'LATIN1'", ""},
}

// TestLock_settings makes every call with each setting of a role, in each mode of each driver: it
// works, or is a clear error.
func TestLock_settings(t *testing.T) {
	tb := dbtest.NewTable(t, dbtest.PostgreSQL[0])
	tb.Lock()
	u, err := url.Parse(tb.DSN)
	require.NoError(t, err)
	schema := u.Query().Get("search_path")
	for i, s := range settings {
		name := fmt.Sprintf("%s_%d", schema, i)
		dbtest.Exec(t, tb.DSN, "CREATE ROLE "+name+" LOGIN", "GRANT USAGE ON SCHEMA "+schema+" TO "+name,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON locks TO "+name,
			fmt.Sprintf("ALTER ROLE %s SET search_path = %s", name, schema),
			fmt.Sprintf("ALTER ROLE %s SET %s = %s", name, s.name, s.value))
		t.Cleanup(func() { dbtest.Exec(t, tb.DSN, "DROP OWNED BY "+name, "DROP ROLE "+name) })
		for _, m := range modes {
			t.Run(s.name+"="+strings.Trim(s.value, "'")+"/"+m.name, func(t *testing.T) {
				dsn := *u
				dsn.User = url.User(name)
				dsn.RawQuery = "sslmode=disable&" + m.param
				db, err := sql.Open(m.driver, dsn.String())
				require.NoError(t, err)
				defer db.Close()
				tb.With(t).Remove()
				l, err := lock.NewWith(db, lock.Options{NoDDL: true, Retry: lock.RetryPolicy{Attempts: 2,
					Backoff: time.Microsecond}})
				require.NoError(t, err)
				says := s.says
				if m.name == "pgx, simple_protocol" && (s.name == "standard_conforming_strings" ||
					s.name == "client_encoding") {
					says = "simple protocol queries must be run with" // pgx's own word
				}
				if says != "" {
					for _, err := range []error{l.Lock(component, "a", job, "1", time.Hour),
						l.Enable(component, job)} {
						require.Error(t, err)
						require.NotErrorIs(t, err, lock.ErrRefused)
						require.Contains(t, fmt.Sprint(codes(err), err), says)
					}
					return
				}
				everyAnswer(t, l) // each statement several times: drivers prepare them
				require.NoError(t, l.CheckTable(t.Context()))
			})
		}
	}
}

// everyAnswer makes every call, with durations from the shortest to the longest, and leaves no
// row.
func everyAnswer(t *testing.T, l *lock.Lock) {
	ctx := context.Background()
	for _, ttl := range []time.Duration{0, 36 * time.Minute, 100 * 365 * 24 * time.Hour,
		lock.Forever} {
		require.NoError(t, l.Lock(component, "a", job, "1", ttl))
		require.NoError(t, l.Lock(component, "a", job, "1", ttl), "held already")
		require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(component, "b", job, "2", ttl))
		require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock(component, "b", job, "2"))
		require.NoError(t, l.Unlock(component, "a", job, "1"))
	}
	require.NoError(t, l.Lock(component, "a", job, `ß'\`, time.Hour))
	require.NoError(t, l.Unlock(component, "a", job, `ß'\`))
	require.NoError(t, l.Lock(component, "a", job, "1", time.Hour))
	require.Eventually(t, func() bool {
		return l.Lock(component, "b", job, "2",
			time.Microsecond) == nil
	}, time.Minute, time.Millisecond)
	require.NoError(t, l.Disable(component, job))
	require.IsType(t, &lock.ErrDisabled{}, l.Lock(component, "b", job, "2", time.Hour))
	require.NoError(t, l.Enable(component, job))
	s, err := l.Status(ctx, component, job)
	require.NoError(t, err)
	require.True(t, s.Locked)
	require.Less(t, s.Holder.Age.Abs(), time.Minute)
	require.WithinDuration(t, time.Now(), s.Holder.LockTime, time.Minute)
	all, err := l.List(ctx)
	require.NoError(t, err)
	require.Equal(t, s.Holder.LockTime, all[0].Holder.LockTime)
	require.NoError(t, l.ForceRelease(ctx, component, job, s.Holder))

	tick := lock.Job{ComponentName: component, JobName: job, ComponentID: "a", TTL: 24 * time.Hour,
		Tick: time.Now().Truncate(time.Second)}
	lease := acquire(t, l, tick)
	require.NoError(t, lease.Renew(ctx))
	require.NoError(t, lease.GiveBack(ctx))
	lease = acquire(t, l, tick)
	require.NoError(t, lease.Renew(ctx))
	require.NoError(t, lease.Release(ctx))
	_, err = l.Acquire(ctx, tick)
	require.IsType(t, &lock.ErrAlreadyRun{}, err)
	tick.Tick = tick.Tick.Add(24 * time.Hour)
	_, err = l.Acquire(ctx, tick)
	require.IsType(t, &lock.ErrTickAhead{}, err)
	spaced := as("a", "3")
	spaced.Spacing = 48 * time.Hour
	_, err = l.Acquire(ctx, spaced)
	require.IsType(t, &lock.ErrAlreadyRun{}, err)
	require.NoError(t, l.Delete(ctx, component, job))
}
