package lockhttp_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

func TestState_JSON(t *testing.T) {
	l, clock := memory()
	run := "2026-11-25T05:30:00Z/R"
	require.NoError(t, l.Lock("shop", "instance-1", "backup", run, time.Hour))
	require.NoError(t, l.Lock("shop", "instance-1", "report", run, time.Hour))
	require.NoError(t, l.Unlock("shop", "instance-1", "report", run))
	require.NoError(t, l.Lock("shop", "instance-1", "plain", "run-1", 0))
	require.NoError(t, l.Disable("shop", "rest"))
	clock.Advance(90 * time.Second)

	h := lockhttp.New(l, lockhttp.Options{Service: "shop", Host: "pod-7", Database: "orders at pg-1",
		TTL: func(component, job string) time.Duration {
			require.Equal(t, "shop", component)
			return map[string]time.Duration{"backup": time.Minute, "report": -1, "plain": lock.Forever}[job]
		}})
	var got map[string]any
	require.NoError(t, json.Unmarshal(ask(h, "GET", "/json", "").Body.Bytes(), &got))
	at, err := time.Parse(time.RFC3339, got["looked_at"].(string))
	require.NoError(t, err)
	require.False(t, at.After(time.Now()))
	require.GreaterOrEqual(t, got["looked_seconds_ago"], 0.)
	delete(got, "looked_at")
	delete(got, "looked_seconds_ago")
	type object = map[string]any
	holder := func(run string, more object) object {
		o := object{"component_id": "instance-1", "job_id": run, "lock_time": "2026-11-25T06:00:00Z",
			"age_seconds": 90.}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	started := object{"started": "2026-11-25T05:30:00Z", "running_seconds": 1890.}
	require.Equal(t, object{
		"service": "shop", "host": "pod-7", "database": "orders at pg-1", "may_change": false,
		"may_wait": false,
		"counts": object{"all": 4., "trouble": 2., "expired": 1., "late": 0., "future": 0.,
			"failing": 0., "disabled": 1., "held": 2., "free": 2.},
		"more": false, "matching": 4.,
		"locks": []any{
			object{"component": "shop", "job": "backup", "states": []any{"expired", "held"},
				"holder": holder(run, started), "ttl_seconds": 60.},
			object{"component": "shop", "job": "rest", "states": []any{"disabled", "free"}},
			object{"component": "shop", "job": "plain", "states": []any{"held"},
				"holder": holder("run-1", nil)},
			object{"component": "shop", "job": "report", "states": []any{"free"},
				"last": holder(run, nil)},
		},
		"changes": []any{},
	}, got)
}

func TestState_states(t *testing.T) {
	held := func(age time.Duration) lock.Status {
		return lock.Status{Locked: true, Enabled: true, Holder: lock.Holder{ComponentID: "i", Age: age}}
	}
	for _, c := range []struct {
		name string
		row  lock.Status
		ttl  time.Duration
		want string
	}{
		{"at three quarters", held(45 * time.Minute), time.Hour, "held"},
		{"after three quarters", held(45*time.Minute + time.Microsecond), time.Hour, "late held"},
		{"at the TTL", held(time.Hour), time.Hour, "late held"},
		{"after the TTL", held(time.Hour + time.Microsecond), time.Hour, "expired held"},
		{"without a TTL", held(10000 * time.Hour), 0, "held"},
		{"that never expires", held(10000 * time.Hour), lock.Forever, "held"},
		{"a clock that is a little behind", held(-time.Second), time.Hour, "held"},
		{"in the future", held(-time.Second - time.Microsecond), time.Hour, "future held"},
		{"in the future, free", lock.Status{Enabled: true, Holder: lock.Holder{Age: -time.Hour}},
			time.Hour, "future free"},
		{"free after the TTL", lock.Status{Enabled: true, Holder: lock.Holder{Age: 2 * time.Hour}},
			time.Hour, "free"},
		{"disabled", lock.Status{}, 0, "disabled free"},
		{"held, disabled", lock.Status{Locked: true}, 0, "disabled held"},
		{"expired, disabled", lock.Status{Locked: true, Holder: lock.Holder{Age: 2 * time.Hour}},
			time.Hour, "expired disabled held"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := newTable(t)
			db.rows(c.row)
			h := lockhttp.New(db.lock(t), lockhttp.Options{
				TTL: func(string, string) time.Duration { return c.ttl }})
			require.Equal(t, c.want, strings.Join(look(t, h).Locks[0].States, " "))
		})
	}
}

// A database answers as it is told.
type database struct {
	*sql.DB
	sqlmock.Sqlmock
}

func newTable(t *testing.T) database {
	db, mock, err := sqlmock.New()
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return database{db, mock}
}

func (db database) lock(t *testing.T) *lock.Lock {
	l, err := lock.NewWith(db.DB, lock.Options{NoDDL: true, Dialect: lock.PostgreSQL,
		Retry: lock.RetryPolicy{Attempts: 1}})
	require.NoError(t, err)
	return l
}

// rows answers the next look. The lock times follow from the ages.
func (db database) rows(all ...lock.Status) {
	rows := sqlmock.NewRows([]string{"c", "j", "ci", "ji", "enabled", "locked", "time", "now"})
	for _, s := range all {
		lockTime := s.Holder.LockTime
		if lockTime.IsZero() {
			lockTime = start.Add(-s.Holder.Age)
		}
		rows.AddRow(s.ComponentName, s.JobName, s.Holder.ComponentID, s.Holder.JobID, s.Enabled,
			s.Locked, lockTime.UnixMicro(), start.UnixMicro())
	}
	db.ExpectQuery("").WillReturnRows(rows)
}

// Whatever lock time a hand has written, the JSON has it, and its release compares it.
func TestState_any_lock_time(t *testing.T) {
	for name, lockTime := range map[string]time.Time{
		"infinity":         time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
		"the year 9999":    time.Date(9999, 12, 31, 0, 0, 0, 0, time.FixedZone("", 5*3600)),
		"minus infinity":   time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
		"before the epoch": time.Date(1969, 7, 20, 20, 17, 40, 123456000, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			db := newTable(t)
			db.rows(lock.Status{ComponentName: "shop", JobName: "backup", Enabled: true, Locked: true,
				Holder: lock.Holder{ComponentID: "i", JobID: "r", LockTime: lockTime}})
			s := look(t, lockhttp.New(db.lock(t), lockhttp.Options{}))
			require.True(t, lockTime.Equal(s.Locks[0].Holder.LockTime), s.Locks[0].Holder.LockTime)
			require.Equal(t, lockTime.After(start), s.Locks[0].States[0] == "future")
		})
	}
}

// What JSON can't hold is an error, and no empty answer.
func TestState_no_JSON(t *testing.T) {
	l := lock.NewMemory(lock.Options{Clock: func() time.Time {
		return time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	}})
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	w := ask(lockhttp.Handler(l), "GET", "/json", "")
	require.Equal(t, 500, w.Code)
	require.Contains(t, w.Body.String(), "year outside of range")
}

func TestState_names_are_data(t *testing.T) {
	l, _ := memory()
	long := strings.Repeat("x", 100_000)
	for _, name := range []string{`<script>alert(1)</script>`, `</script>`, "\u202egnp.exe", long,
		`"'` + "\n\u2028"} {
		require.NoError(t, l.Lock(name, name, name, name, 0))
	}
	w := ask(lockhttp.Handler(l), "GET", "/json", "")
	require.NotContains(t, w.Body.String(), "<")
	for _, entry := range decode[lockhttp.State](t, w).Locks {
		require.Equal(t, entry.Component, entry.Job)
		require.Equal(t, entry.Component, entry.Holder.ComponentID)
		require.Equal(t, entry.Component, entry.Holder.JobID)
	}
}

// What the service calls itself is shown, unless it may have a password in it.
func TestOptions_place(t *testing.T) {
	l, _ := memory()
	for _, secret := range []string{
		"postgres://shop:s3cret@pg-1/orders", "postgres:///orders?password=s3cret",
		"host=pg-1 password=s3cret", "password = 's3cret'", "shop:s3cret@tcp(pg-1)/orders",
		"s3cret@pg-1", "postgres://shop:s3cret", "PASSWORD\t=\ts3cret",
	} {
		for _, o := range []lockhttp.Options{{Service: secret}, {Host: secret}, {Database: secret}} {
			w := ask(lockhttp.New(l, o), "GET", "/json", "")
			require.Contains(t, w.Body.String(), "not shown")
			require.NotContains(t, w.Body.String(), "s3cret")
		}
	}
	require.Equal(t, "orders at pg-1:5432",
		look(t, lockhttp.New(l, lockhttp.Options{Database: "orders at pg-1:5432"})).Database)
}

const secretError = `pq: password authentication failed for user "shop" at 10.1.2.3`

func TestState_database_fails(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     lockhttp.Options
		shown bool
	}{
		{"without a hook", lockhttp.Options{}, false},
		{"for whom the service lets look", lockhttp.Options{Authorize: anything}, true},
	} {
		fails := func(t *testing.T) {
			db := newTable(t)
			var events lockhttp.Events
			c.o.Events = &events
			l, err := lock.NewWith(db.DB, lock.Options{NoDDL: true, Dialect: lock.PostgreSQL,
				Retry: lock.RetryPolicy{Attempts: 1}, Observer: events.Observe})
			require.NoError(t, err)
			h := lockhttp.New(l, c.o)
			db.ExpectQuery("").WillReturnError(errors.New(secretError))
			require.Error(t, l.Lock("shop", "i", "backup", "r", time.Hour))
			db.rows(lock.Status{ComponentName: "shop", JobName: "backup", Enabled: true, Locked: true,
				Holder: lock.Holder{ComponentID: "i", JobID: "r"}})
			before := look(t, h)
			require.Equal(t, []string{"failing", "held"}, before.Locks[0].States)
			require.NotNil(t, before.Locks[0].FailedAt)
			require.Equal(t, c.shown, strings.Contains(before.Locks[0].Failure, secretError))
			require.Equal(t, c.shown, before.Locks[0].Failure != "")

			time.Sleep(time.Second) // until the page looks again
			db.ExpectQuery("").WillReturnError(errors.New(secretError))
			w := ask(h, "GET", "/json", "")
			require.Equal(t, 503, w.Code)
			now := decode[lockhttp.State](t, w)
			require.Equal(t, c.shown, strings.Contains(w.Body.String(), "10.1.2.3"))
			require.NotEmpty(t, now.Error)
			require.Equal(t, before.Locks, now.Locks, "what was known stays")
			require.Equal(t, before.LookedAt, now.LookedAt)
			require.Equal(t, 200, ask(h, "GET", "/", "").Code, "the page itself needs no database")
			require.Equal(t, 503, ask(h, "HEAD", "/json", "").Code)
		}
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, fails) })
	}
}

// What CheckTable finds is shown; without a hook only that there is something.
func TestState_problem(t *testing.T) {
	for finding, o := range map[string]lockhttp.Options{
		"CheckTable": {Authorize: anything},
		"The reason is only shown where lockhttp.Options.Authorize is set.": {},
	} {
		db := newTable(t)
		db.rows() // and no answer to what CheckTable asks
		s := look(t, lockhttp.New(db.lock(t), o))
		require.Contains(t, s.Problem, finding)
		require.Empty(t, s.Error)
	}
	l, _ := memory()
	require.Empty(t, look(t, lockhttp.Handler(l)).Problem)
}

// doesNothing is a Storage that a service uses where its database is switched off.
type doesNothing struct{}

func (doesNothing) Exec(string, ...interface{}) (sql.Result, error) { return nil, nil }
func (doesNothing) QueryRow(string, ...interface{}) *sql.Row        { return nil }

// broken is a Storage that panics when it is asked.
type broken struct{ doesNothing }

func (broken) Query(string, ...interface{}) (*sql.Rows, error) { panic("out of order") }

func TestState_no_database(t *testing.T) {
	for _, c := range []struct {
		name string
		l    *lock.Lock
		says string
	}{
		{"no lock", nil, "there is no database"},
		{"the zero lock", &lock.Lock{}, "there is no database"},
		{"no Storage", lock.New(nil), "there is no database"},
		{"a Storage that can't list", lock.New(doesNothing{}), "neither QueryContext nor Query"},
		{"a Storage that panics", lock.New(broken{}), "the Storage panicked: out of order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := lockhttp.New(c.l, lockhttp.Options{Authorize: anything})
			w := ask(h, "GET", "/json", "")
			require.Equal(t, 503, w.Code)
			s := decode[lockhttp.State](t, w)
			require.Contains(t, s.Error, c.says)
			require.Nil(t, s.LookedAt)
			require.Contains(t, w.Body.String(), `"locks":[],"changes":[]`)
			require.Equal(t, 503, post(h, release(lockhttp.Holder{})).Code)

			w = ask(lockhttp.Handler(c.l), "GET", "/json", "")
			require.Equal(t, 503, w.Code)
			require.NotContains(t, w.Body.String(), c.says)
		})
	}
}
