package tests

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/faultproxy"
)

// A doing is a call that changes the row, with the row before and after it.
type doing struct {
	name          string
	verb          string
	do            func(l *lock.Lock) error
	before, after dbtest.Row // no row at all if the status is nil
}

var (
	doLock    = func(l *lock.Lock) error { return l.Lock(component, "a", job, "1", time.Hour) }
	doUnlock  = func(l *lock.Lock) error { return l.Unlock(component, "a", job, "1") }
	doEnable  = func(l *lock.Lock) error { return l.Enable(component, job) }
	doDisable = func(l *lock.Lock) error { return l.Disable(component, job) }

	ours = dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED",
		Age: time.Minute}
	theirs = dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED",
		Age: time.Minute}
)

var doings = []doing{
	{"Lock of a new job", "Lock", doLock, dbtest.Row{}, ours},
	{"Lock of a free job", "Lock", doLock, with(theirs, true, "UNLOCKED"), ours},
	{"Unlock", "Unlock", doUnlock, ours, with(ours, true, "UNLOCKED")},
	{"Enable", "Enable", doEnable, with(theirs, false, "LOCKED"), theirs},
	{"Disable", "Disable", doDisable, theirs, with(theirs, false, "LOCKED")},
}

func with(r dbtest.Row, enabled bool, status string) dbtest.Row {
	r.Enabled, r.Status = enabled, status
	return r
}

// prepare sets the row before the call.
func (d doing) prepare(tb dbtest.Table) {
	tb.Remove()
	if d.before.Status != nil {
		tb.Put(d.before)
	}
}

// done reports whether the row is as after the call; otherwise it must be as before.
func (d doing) done(tb dbtest.Table) bool {
	now := dbtest.Row{}
	if s := tb.Get(component, job); s != nil {
		now = s.Fields()
	}
	before, after := d.before, d.after
	before.Age, after.Age = nil, nil
	require.Contains(tb.T, []dbtest.Row{before, after}, now)
	return now == after
}

// notRefused: the error is not a refusal, and names the call, the component, the job and all
// parts.
func notRefused(t testing.TB, err error, verb string, parts ...string) {
	require.Error(t, err)
	dbtest.Fails(append(parts, verb+" job")...)(t, err)
	require.NotErrorAs(t, err, new(*lock.ErrUnauthorised))
	require.NotErrorAs(t, err, new(*lock.ErrDisabled))
}

// once is a Storage on which nothing is retried, since it looks like a transaction.
type once struct{ *sql.DB }

func (once) Commit() error   { return nil }
func (once) Rollback() error { return nil }

// The most attempts that a call makes.
const attempts = 9

func inTx(t *testing.T, db *sql.DB) *sql.Tx {
	tx, err := db.Begin()
	require.NoError(t, err)
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

// A connection that breaks.

// through is a client that is connected to the server through a proxy.
func through(tb dbtest.Table) (*faultproxy.Proxy, *sql.DB) {
	u, err := url.Parse(tb.DSN)
	require.NoError(tb.T, err)
	p, err := faultproxy.Start(u.Host)
	require.NoError(tb.T, err)
	tb.T.Cleanup(p.Close)
	u.Host = p.Addr()
	return p, tb.Engine.OpenDSN(tb.T, u.String())
}

// places calls test with a fault at each message of an exchange in turn, until one did not
// happen.
func places(then faultproxy.Then, test func(faultproxy.Fault) (happened bool)) {
	for _, place := range []faultproxy.Place{faultproxy.BeforeRequest, faultproxy.BeforeReply,
		faultproxy.AmidReply} {
		for n := 0; test(faultproxy.Fault{Place: place, N: n, Then: then}); n++ {
		}
	}
	for _, place := range []faultproxy.Place{faultproxy.ReplyLost, faultproxy.NotCommitted} {
		test(faultproxy.Fault{Place: place, Then: then})
	}
}

func TestLock_connectionIsCut(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		for _, d := range doings[1:] {
			t.Run(d.verb, func(t *testing.T) {
				t.Parallel()
				tb := dbtest.NewTable(t, e)
				p, db := through(tb)
				l := lock.New(db)
				cuts := 0
				places(faultproxy.Recover, func(f faultproxy.Fault) bool {
					d.prepare(tb)
					p.Arm(f)
					require.NoError(t, d.do(l), f)
					require.True(t, d.done(tb), f)
					if !p.Disarm() {
						return false
					}
					cuts++
					return true
				})
				require.Greater(t, cuts, 10)
			})
		}
	})
}

func TestRetryPolicy_oneAttempt(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		for i, d := range doings {
			for _, then := range []faultproxy.Then{faultproxy.Vanish, faultproxy.Refuse} {
				if then == faultproxy.Refuse && i != 0 {
					continue // the calls differ before the cut, not after it
				}
				t.Run(d.name+", then "+then.String(), func(t *testing.T) {
					t.Parallel()
					tb := dbtest.NewTable(t, e)
					lock.New(tb)
					did := map[bool]int{}
					places(then, func(f faultproxy.Fault) bool {
						d.prepare(tb)
						p, db := through(tb)
						defer p.Close()
						defer db.Close()
						require.NoError(t, db.Ping())
						p.Arm(f)
						l, err := lock.NewWith(once{db}, lock.Options{Dialect: lock.PostgreSQL})
						require.NoError(t, err)
						err = d.do(l)
						if !p.Disarm() {
							require.NoError(t, err, f)
							return false
						}
						done := d.done(tb)
						did[done]++
						if err == nil {
							require.True(t, done, f)
						} else {
							notRefused(t, err, d.verb)
						}
						if done && err != nil {
							require.ErrorIs(t, err, lock.ErrOutcomeUnknown, f)
						}
						switch f.Place {
						case faultproxy.ReplyLost:
							require.True(t, done, f)
							require.Error(t, err, f)
						case faultproxy.NotCommitted:
							require.False(t, done, f)
						}
						settles(tb, d, done, f)
						return true
					})
					require.NotZero(t, did[true])
					require.NotZero(t, did[false])
				})
			}
		}
	})
}

// settles: repeating the call succeeds, and does nothing twice.
func settles(tb dbtest.Table, d doing, done bool, msg ...any) {
	before := tb.Get(component, job)
	require.NoError(tb.T, d.do(lock.New(tb)), msg...)
	require.True(tb.T, d.done(tb), msg...)
	if done {
		require.Equal(tb.T, before, tb.Get(component, job), msg...)
	}
}

func TestRetryPolicy_databaseStaysAway(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		for _, d := range []doing{doings[0], doings[4]} { // a query and an Exec
			t.Run(d.name, func(t *testing.T) {
				t.Parallel() // they wait for real
				tb := dbtest.NewTable(t, e)
				lock.New(tb)
				d.prepare(tb)
				p, db := through(tb)
				p.Close()
				err := d.do(lock.New(db))
				notRefused(t, err, d.verb)
				require.ErrorAs(t, err, new(*net.OpError))
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown, "nothing was sent")
				require.False(t, d.done(tb))
				settles(tb, d, false)
			})
		}
	})
}

func TestLock_deadConnections(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb)
		p, db := through(tb)
		l := lock.New(db)
		var conns []*sql.Conn
		for range 2 * attempts {
			conn, err := db.Conn(context.Background())
			require.NoError(t, err)
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			require.NoError(t, conn.Close())
		}
		require.Equal(t, 2*attempts, db.Stats().Idle)
		p.Refuse()
		p.Heal()
		require.NoError(t, doLock(l))
	})
}

func TestNew_tableIsCreatedByTheFirstCall(t *testing.T) {
	for name, breaks := range map[string]func(p *faultproxy.Proxy){
		"the database was away": (*faultproxy.Proxy).Refuse,
		"the connection was broken": func(p *faultproxy.Proxy) {
			p.Arm(faultproxy.Fault{Place: faultproxy.BeforeRequest})
		},
		"the reply was lost": func(p *faultproxy.Proxy) {
			p.Arm(faultproxy.Fault{Place: faultproxy.BeforeReply})
		},
	} {
		t.Run(name, func(t *testing.T) {
			onPostgres(t, func(t *testing.T, e dbtest.Engine) {
				for _, d := range doings {
					tb := dbtest.NewTable(t, e)
					p, db := through(tb)
					breaks(p)
					l := lock.New(db)
					p.Heal()
					require.NoError(t, d.do(l))
					if d.verb != "Unlock" {
						require.Equal(t, d.verb != "Disable", tb.Get(component, job).Enabled.Bool)
					}
				}
			})
		})
	}
}

// A server that fails by itself.

func TestLock_backendIsShutDown(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb)
		l := lock.New(e.OpenDSN(t, tb.DSN))
		for _, d := range doings[1:] {
			t.Run(d.verb, func(t *testing.T) {
				tb := tb.With(t)
				d.prepare(tb)
				holder, err := tb.Begin()
				require.NoError(t, err)
				defer holder.Rollback()
				_, err = holder.Exec("SELECT FROM locks FOR UPDATE")
				require.NoError(t, err)
				result := make(chan error, 1)
				go func() { result <- d.do(l) }()
				pid := waitsFor(t, holder, 0)
				_, err = tb.Exec("SELECT pg_terminate_backend($1)", pid)
				require.NoError(t, err)
				waitsFor(t, holder, pid)
				require.NoError(t, holder.Commit())
				require.NoError(t, <-result)
				require.True(t, d.done(tb))
			})
		}
	})
}

// TestLock_rowChangesMeanwhile: a call waits for a row, and another transaction commits a change.
func TestLock_rowChangesMeanwhile(t *testing.T) {
	tick := time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)
	expired := theirs
	expired.JobID, expired.Age = tick.Format(time.RFC3339), 2*time.Hour
	acquireTick := func(l *lock.Lock) error {
		_, err := l.Acquire(t.Context(), lock.Job{ComponentName: component, JobName: job,
			ComponentID: "a", Tick: tick, TTL: time.Hour})
		return err
	}
	tests := []struct {
		name   string
		before dbtest.Row
		update string
		call   func(*lock.Lock) error
		expect dbtest.Answer
	}{
		{"nothing", with(theirs, true, "UNLOCKED"), "enabled = enabled", doLock, dbtest.Granted},
		{"locked", with(theirs, true, "UNLOCKED"), "component_id = 'c', job_id = '3', " +
			"status = 'LOCKED', lock_time = clock_timestamp()", doLock, dbtest.RefusedBy("c", "3")},
		{"disabled", with(theirs, true, "UNLOCKED"), "enabled = FALSE", doLock, dbtest.Disabled},
		{"taken over", expired, "component_id = 'c', job_id = '3', lock_time = clock_timestamp()",
			doLock, dbtest.RefusedBy("c", "3")},
		{"renewed", expired, "lock_time = clock_timestamp()", doLock,
			dbtest.RefusedBy("b", expired.JobID.(string))},
		{"tick is released", expired, "status = 'UNLOCKED'", acquireTick,
			dbtest.AlreadyRun(false, tick.Format(time.RFC3339))},
	}
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb)
		for _, isolation := range []string{"read%20committed", "serializable"} {
			l := lock.New(e.OpenDSN(t, tb.DSN+"&default_transaction_isolation="+isolation))
			for _, test := range tests {
				t.Run(isolation+"/"+test.name, func(t *testing.T) {
					tb := tb.With(t)
					tb.Put(test.before)
					other := inTx(t, tb.DB)
					_, err := other.Exec("UPDATE locks SET " + test.update)
					require.NoError(t, err)
					result := make(chan error, 1)
					go func() { result <- test.call(l) }()
					waitsFor(t, other, 0)
					require.NoError(t, other.Commit())
					test.expect(t, <-result)
				})
			}
		}
	})
}

// Transactions of the caller's.

func TestLock_failedTransaction(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb)
		for _, d := range doings {
			t.Run(d.name, func(t *testing.T) {
				d.prepare(tb.With(t))
				tx, err := tb.Begin()
				require.NoError(t, err)
				defer tx.Rollback()
				l := lock.New(tx)
				_, err = tx.Exec("SELECT 1/0")
				require.Error(t, err)
				err = d.do(l)
				notRefused(t, err, d.verb, "25P02", "current transaction is aborted")
				require.Equal(t, []string{"25P02"}, codes(err))
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
				require.NoError(t, tx.Rollback())
				require.False(t, d.done(tb.With(t)))
			})
		}
	})
}

func TestLock_storageIsClosed(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb)
		closed := e.OpenDSN(t, tb.DSN)
		closedLater := lock.New(closed)
		require.NoError(t, closed.Close())
		committed, err := tb.Begin()
		require.NoError(t, err)
		require.NoError(t, committed.Commit())
		rolledBack, err := tb.Begin()
		require.NoError(t, err)
		require.NoError(t, rolledBack.Rollback())
		conn, err := tb.Conn(context.Background())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		for _, test := range []struct {
			name string
			l    *lock.Lock
			text string
			is   error // database/sql doesn't export all
		}{
			{"DB closed before New", lock.New(closed), "database is closed", nil},
			{"DB closed after New", closedLater, "database is closed", nil},
			{"committed", lock.New(committed), "transaction has already been committed", sql.ErrTxDone},
			{"rolled back", lock.New(rolledBack), "transaction has already been committed or rolled back",
				sql.ErrTxDone},
			{"connection given back", lock.New(dbtest.ConnStorage{Conn: conn}),
				"connection is already closed", sql.ErrConnDone},
		} {
			for _, d := range doings {
				t.Run(test.name+"/"+d.name, func(t *testing.T) {
					d.prepare(tb.With(t))
					begun := time.Now()
					err := d.do(test.l)
					notRefused(t, err, d.verb, test.text)
					if test.is != nil {
						require.ErrorIs(t, err, test.is)
					}
					require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
					require.Less(t, time.Since(begun), time.Second, "it was retried")
					require.False(t, d.done(tb.With(t)))
				})
			}
		}
	})
}

// Rights, and tables that others made.

func TestLock_missingTableInATransaction(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		for _, d := range doings {
			tx, err := tb.Begin()
			require.NoError(t, err)
			err = d.do(lock.New(tx))
			require.NoError(t, tx.Rollback())
			notRefused(t, err, d.verb, "locks", "call New once with the *sql.DB")
			require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			if e.SQLite() {
				require.ErrorContains(t, err, "no such table")
			} else {
				require.Equal(t, []string{"42P01"}, codes(err))
			}
		}
	})
}

// readOnly is a client that may not write.
func readOnly(tb dbtest.Table) *sql.DB {
	if tb.Engine.SQLite() {
		file, _, _ := strings.Cut(tb.DSN, "?")
		return tb.Engine.OpenDSN(tb.T, file+"?mode=ro")
	}
	return tb.Engine.OpenDSN(tb.T, tb.DSN+"&default_transaction_read_only=on")
}

func readOnlyCode(e dbtest.Engine) string {
	if e.SQLite() {
		return "8" // SQLITE_READONLY
	}
	return "25006"
}

func TestLock_readOnlyDatabase(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb)
		l, err := lock.NewWith(readOnly(tb), lock.Options{Retry: atOnce})
		require.NoError(t, err)
		tests := doings
		if !e.SQLite() && !e.CockroachDB() {
			tests = append(slices.Clone(doings),
				doing{"Lock of a job that another holds", "Lock", doLock, theirs, dbtest.Row{}},
				doing{"Unlock of a job that another holds", "Unlock", doUnlock, theirs, dbtest.Row{}},
				doing{"Lock of a disabled job", "Lock", doLock, with(theirs, false, "LOCKED"), dbtest.Row{}},
				doing{"Lock of a job that the caller holds", "Lock", doLock, ours, dbtest.Row{}})
		}
		for _, d := range tests {
			t.Run(d.name, func(t *testing.T) {
				tb := tb.With(t)
				d.prepare(tb)
				before := tb.Get(component, job)
				err := d.do(l)
				notRefused(t, err, d.verb)
				require.Equal(t, []string{readOnlyCode(e)}, codes(err))
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
				require.Equal(t, before, tb.Get(component, job))
			})
		}
	})
}

// codes returns the codes of all errors that err wraps.
func codes(err error) (all []string) {
	if s, ok := err.(interface{ SQLState() string }); ok {
		all = append(all, s.SQLState())
	}
	if s, ok := err.(*sqlite.Error); ok {
		all = append(all, fmt.Sprint(s.Code()&0xff))
	}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		all = append(all, codes(w.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, e := range w.Unwrap() {
			all = append(all, codes(e)...)
		}
	}
	return all
}

// A role is a user that may only use the schema.
type role struct {
	tb   dbtest.Table
	name string
	dsn  string
}

func newRole(tb dbtest.Table) role {
	u, err := url.Parse(tb.DSN)
	require.NoError(tb.T, err)
	schema := u.Query().Get("search_path")
	r := role{tb: tb, name: "role_" + schema}
	r.owner("CREATE ROLE "+r.name+" LOGIN", "GRANT USAGE ON SCHEMA "+schema+" TO "+r.name)
	tb.T.Cleanup(func() { r.owner("DROP OWNED BY "+r.name, "DROP ROLE "+r.name) })
	u.User = url.User(r.name)
	r.dsn = u.String()
	return r
}

// owner runs statements as the table's owner.
func (r role) owner(statements ...string) {
	for _, s := range statements {
		_, err := r.tb.Exec(s)
		require.NoError(r.tb.T, err)
	}
}

func TestOptions_NoDDL_missingTable(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		role := newRole(tb)
		db := e.OpenDSN(t, role.dsn)
		l := lock.New(db)
		for _, d := range slices.Concat(doings, doings) {
			err := d.do(l)
			notRefused(t, err, d.verb, "does not exist", "permission denied")
			require.Equal(t, []string{"42P01", "42501"}, codes(err))
			require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			require.Equal(t, 1, strings.Count(err.Error(), "permission denied"))
		}
		noDDL, err := lock.NewWith(db, lock.Options{NoDDL: true})
		require.NoError(t, err)
		notRefused(t, doLock(noDDL), "Lock", "does not exist", "Options.NoDDL is set")

		lock.New(tb) // its owner creates it
		for _, d := range doings {
			err := d.do(l)
			notRefused(t, err, d.verb, "permission denied")
			require.Equal(t, []string{"42501"}, codes(err))
		}

		// Neither a new Lock is needed nor more rights than these.
		role.owner("GRANT SELECT, INSERT, UPDATE ON locks TO " + role.name)
		for _, l := range []*lock.Lock{l, lock.New(db)} {
			for _, d := range doings {
				d.prepare(tb)
				require.NoError(t, d.do(l))
				require.True(t, d.done(tb))
			}
			tb.Remove()
			tb.Put(theirs)
			dbtest.RefusedBy("b", "2")(t, doLock(l))
			dbtest.RefusedBy("b", "2")(t, doUnlock(l))
		}
	})
	t.Run("SQLite", func(t *testing.T) {
		tb := dbtest.NewTable(t, engines[0])
		// The file is there, and no table in it.
		_, err := tb.Exec("CREATE TABLE other (x)")
		require.NoError(t, err)
		l := lock.New(readOnly(tb))
		for _, d := range doings {
			err := d.do(l)
			notRefused(t, err, d.verb, "no such table", "readonly database")
			require.Equal(t, []string{"1", "8"}, codes(err))
			require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
		}
	})
}

func TestLock_shortColumns(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		zone := "TIMESTAMP WITH TIME ZONE"
		if e.SQLite() {
			zone = "TIMESTAMP"
		}
		_, err := tb.Exec(`CREATE TABLE locks (component_name VARCHAR(40), component_id VARCHAR(40),
			job_name VARCHAR(40), job_id VARCHAR(40), enabled BOOLEAN, status VARCHAR(10),
			lock_time ` + zone + `, PRIMARY KEY (component_name, job_name))`)
		require.NoError(t, err)
		l := lock.New(tb)
		for _, d := range doings {
			t.Run(d.name, func(t *testing.T) {
				tb := tb.With(t)
				d.prepare(tb)
				require.NoError(t, d.do(l))
				require.True(t, d.done(tb))
			})
		}
		t.Run("refusals", func(t *testing.T) {
			tb := tb.With(t)
			tb.Remove()
			tb.Put(theirs)
			dbtest.RefusedBy("b", "2")(t, doLock(l))
			dbtest.RefusedBy("b", "2")(t, doUnlock(l))
			tb.Put(with(theirs, false, "LOCKED"))
			dbtest.Disabled(t, doLock(l))
		})
		if e.SQLite() {
			return // which has no short columns
		}
		long := strings.Repeat("é", 41)
		for _, d := range []doing{
			{"component ID", "Lock", func(l *lock.Lock) error {
				return l.Lock(component, long, job, "1",
					time.Hour)
			}, doings[1].before, dbtest.Row{}},
			{"job ID", "Lock", func(l *lock.Lock) error {
				return l.Lock(component, "a", job, long,
					time.Hour)
			}, doings[1].before, dbtest.Row{}},
			{"job ID of a new job", "Lock", func(l *lock.Lock) error {
				return l.Lock(component, "a", job,
					long, time.Hour)
			}, dbtest.Row{}, dbtest.Row{}},
			{"job ID of an expired lock", "Lock", func(l *lock.Lock) error {
				return l.Lock(component, "a",
					job, long, time.Second)
			}, theirs, dbtest.Row{}},
		} {
			t.Run("over-long "+d.name, func(t *testing.T) {
				tb := tb.With(t)
				d.prepare(tb)
				before := tb.Get(component, job)
				err := d.do(l)
				notRefused(t, err, d.verb, "too long", "22001")
				require.Equal(t, []string{"22001"}, codes(err))
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
				require.Equal(t, before, tb.Get(component, job))
			})
		}
		t.Run("over-long names", func(t *testing.T) {
			tb.With(t).Remove()
			for verb, err := range map[string]error{
				"Lock":    l.Lock(long, "a", job, "1", time.Hour),
				"Enable":  l.Enable(long, job),
				"Disable": l.Disable(component, long),
			} {
				require.ErrorContains(t, err, "lock: "+verb+" job")
				require.ErrorContains(t, err, long)
				require.Equal(t, []string{"22001"}, codes(err))
			}
			require.NoError(t, l.Unlock(long, "a", job, "1")) // there can be no such lock
			var rows int
			require.NoError(t, tb.QueryRow("SELECT count(*) FROM locks").Scan(&rows))
			require.Zero(t, rows)
		})
		t.Run("an over-long ID holds nothing", func(t *testing.T) {
			tb := tb.With(t)
			tb.Put(theirs)
			require.ErrorAs(t, l.Lock(component, long, job, "1", time.Hour), new(*lock.ErrUnauthorised))
			require.ErrorAs(t, l.Unlock(component, long, job, "1"), new(*lock.ErrUnauthorised))
		})
	})
}

func TestLock_noPrimaryKey(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		_, err := tb.Exec(`CREATE TABLE locks (component_name TEXT, component_id TEXT, job_name TEXT,
			job_id TEXT, enabled BOOL, status TEXT, lock_time TIMESTAMP)`)
		require.NoError(t, err)
		l := lock.New(tb)
		for verb, do := range map[string]func(*lock.Lock) error{"Lock": doLock, "Enable": doEnable,
			"Disable": doDisable} {
			err := do(l)
			notRefused(t, err, verb, "ON CONFLICT")
			require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			if e.SQLite() {
				require.Equal(t, []string{"1"}, codes(err)) // SQLITE_ERROR
			} else {
				require.Equal(t, []string{"42P10"}, codes(err))
			}
			require.Nil(t, tb.Get(component, job))
		}
	})
}
