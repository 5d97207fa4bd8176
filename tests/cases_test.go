package tests

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// Cases that users ran into.

var isolations = []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead,
	sql.LevelSerializable}

// begun begins a transaction and takes its snapshot.
func begun(t *testing.T, db *sql.DB, level sql.IsolationLevel) *sql.Tx {
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
	require.NoError(t, err)
	t.Cleanup(func() { tx.Rollback() })
	require.NoError(t, tx.QueryRow("SELECT count(*) FROM locks").Scan(new(int)))
	return tx
}

func TestLease_Check_oldSnapshot(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		for _, level := range isolations {
			for _, existed := range []bool{true, false} { // the row, when the transaction began
				t.Run(fmt.Sprintf("%v, row existed: %t", level, existed), func(t *testing.T) {
					tb := dbtest.NewTable(t, e)
					l := tb.Lock()
					check := func(tx *sql.Tx, le *lock.Lease) {
						err := le.Check(t.Context(), tx)
						require.NotErrorIs(t, err, lock.ErrLost)
						if level == sql.LevelReadCommitted {
							require.NoError(t, err)
							require.NoError(t, tx.Commit())
						} else {
							require.Equal(t, []string{"40001"}, codes(err))
							require.NoError(t, tx.Rollback())
						}
					}
					var le *lock.Lease
					if existed {
						le = acquire(t, l, as("a", "1"))
					}
					tx := begun(t, tb.DB, level)
					if existed {
						require.NoError(t, le.Renew(t.Context()))
					} else {
						le = acquire(t, l, as("a", "1"))
					}
					check(tx, le)

					// In a fresh one Check returns nil, and nobody renews or takes over until it
					// ends.
					tx = begun(t, tb.DB, level)
					require.NoError(t, le.Check(t.Context(), tx))
					require.NoError(t, tx.Commit())

					// A lease that was lost before the snapshot is never called good.
					require.NoError(t, l.ForceRelease(t.Context(), component, job, lock.Holder{ComponentID: "a",
						JobID: "1"}))
					tx = begun(t, tb.DB, level)
					require.ErrorIs(t, le.Check(t.Context(), tx), lock.ErrLost)
					require.NoError(t, tx.Rollback())
				})
			}
		}
	})
}

func TestLock_Lock_oldSnapshotOfTheCaller(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		for _, level := range isolations {
			t.Run(level.String(), func(t *testing.T) {
				tb := dbtest.NewTable(t, e)
				l := tb.Lock()
				require.NoError(t, l.Lock(component, "a", job, "1", time.Hour))
				for name, call := range map[string]func(*lock.Lock) error{
					"Lock":   func(l *lock.Lock) error { return l.Lock(component, "a", job, "1", time.Hour) },
					"Unlock": func(l *lock.Lock) error { return l.Unlock(component, "a", job, "1") },
				} {
					tb.Put(ours)
					tx := begun(t, tb.DB, level)
					require.NoError(t, l.ForceRelease(t.Context(), component, job, lock.Holder{ComponentID: "a",
						JobID: "1"}))
					require.NoError(t, l.Lock(component, "b", job, "2", time.Hour))
					err := call(lock.New(tx))
					if level == sql.LevelReadCommitted {
						dbtest.RefusedBy("b", "2")(t, err)
					} else {
						require.Equal(t, []string{"40001"}, codes(err), name)
						require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
					}
					require.NoError(t, tx.Rollback())

					tb.Put(ours)
					tx = begun(t, tb.DB, level)
					require.NoError(t, call(lock.New(tx)), "a snapshot that is not old")
					require.NoError(t, tx.Commit())
				}
			})
		}
	})
}

func TestLock_migrationOfAColumn(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		tb.SetMaxOpenConns(2)
		lease := acquire(t, l, lock.Job{ComponentName: component, JobName: "leased", TTL: time.Hour})
		for _, column := range []string{"job_id", "component_id", "status"} {
			for _, to := range []string{"VARCHAR(100)", "TEXT"} {
				require.NoError(t, lease.Renew(t.Context()))
				everyAnswer(t, l)
				dbtest.Exec(t, tb.DSN, "ALTER TABLE locks ALTER COLUMN "+column+" TYPE "+to)
			}
		}
		require.NoError(t, lease.Release(t.Context()))
	})
}

// TestLock_sessionsOfAFormerPrimary: the sessions of the pool can only read, new ones can write.
func TestLock_sessionsOfAFormerPrimary(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		role := newRole(tb)
		role.owner("GRANT SELECT, INSERT, UPDATE, DELETE ON locks TO " + role.name)
		db := e.OpenDSN(t, role.dsn)
		l := lock.New(db)
		for _, d := range doings {
			d.prepare(tb)
			role.owner("ALTER ROLE " + role.name + " SET default_transaction_read_only = on")
			db.SetMaxIdleConns(0) // closes all
			db.SetMaxIdleConns(64)
			var conns []*sql.Conn
			for range 3 * attempts {
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				require.NoError(t, conn.PingContext(t.Context()))
				conns = append(conns, conn)
			}
			for _, conn := range conns {
				conn.Close()
			}
			role.owner("ALTER ROLE " + role.name + " RESET default_transaction_read_only")
			require.NoError(t, d.do(l), d.name)
			require.True(t, d.done(tb), d.name)
		}
	})
}

// gate is a proxy that refuses the first connections with an error of PostgreSQL.
func gate(t *testing.T, server string, turnedAway int64, code string) (addr string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	var n atomic.Int64
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if n.Add(1) > turnedAway {
					s, err := net.Dial("tcp", server)
					if err != nil {
						return
					}
					defer s.Close()
					go io.Copy(s, c)
					io.Copy(c, s)
					return
				}
				head := make([]byte, 4)
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head))-4)
				body := "SFATAL\x00VFATAL\x00C" + code + "\x00Mall server connections are in use\x00\x00"
				c.Write(append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4)), body...))
			}()
		}
	}()
	return listener.Addr().String()
}

func TestLock_refusedWhileConnecting(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		for code, cured := range map[string]bool{"XX000": true, "08P01": true, "53300": true,
			"28P01": false, "3D000": false} {
			u, err := url.Parse(tb.DSN)
			require.NoError(t, err)
			u.Host = gate(t, u.Host, 3, code)
			l, err := lock.NewWith(e.OpenDSN(t, u.String()), lock.Options{NoDDL: true,
				Retry: atOnce})
			require.NoError(t, err)
			err = l.Enable(component, job)
			if cured {
				require.NoError(t, err, code)
			} else {
				require.Equal(t, []string{code}, codes(err))
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			}
		}
	})
}

func TestJob_Wait_timeoutsOfTheServer(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		for _, timeout := range []string{"lock_timeout=20", "statement_timeout=20"} {
			tb := dbtest.NewTable(t, e)
			tb.Lock()
			db, faulty := e.OpenFaulty(t, tb.DSN+"&"+timeout)
			l, err := lock.NewWith(db, lock.Options{NoDDL: true})
			require.NoError(t, err)
			tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "UNLOCKED",
				Age: time.Minute})
			other := inTx(t, tb.DB)
			_, err = other.Exec("SELECT FROM locks FOR UPDATE")
			require.NoError(t, err)
			third := make(chan struct{})
			faulty.Arm(func(n int) dbtest.Fault {
				if n == 3 {
					close(third)
				}
				return dbtest.Fault{}
			})
			got := make(chan error, 1)
			go func() {
				j := as("a", "1")
				j.Wait, j.Poll = lock.Forever, time.Millisecond
				_, err := l.Acquire(t.Context(), j)
				got <- err
			}()
			select {
			case <-third:
			case err := <-got:
				t.Fatal(timeout, ": it didn't wait: ", err)
			}
			require.NoError(t, other.Rollback())
			require.NoError(t, <-got, timeout)
		}
	})
}

func TestNew_muteHost(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			mute, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer mute.Close()
			db := dbtest.Engine{Driver: driver}.OpenDSN(t,
				"postgres://postgres@"+mute.Addr().String()+"/postgres?sslmode=disable")
			made := make(chan *lock.Lock, 1)
			go func() { made <- lock.New(db) }()
			select {
			case l := <-made:
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				require.ErrorIs(t, l.LockContext(ctx, component, "a", job, "1", 0), context.Canceled)
			case <-time.After(time.Minute):
				t.Fatal("New hangs")
			}
		})
	}
}

func TestLock_List_timesWrittenByHand(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		times := []string{"'infinity'", "'-infinity'", "'9999-12-31 23:59:59-05'",
			"'20000-01-01 00:00:00+00'", "'0044-03-15 12:00:00+00 BC'", "NULL", "'0001-01-01 00:00:00+00'"}
		switch {
		case e.SQLite():
			times = []string{"'soon'", "''", "0", "NULL", "'9999-12-31 23:59:59.999999+00:00'", "x'00'"}
		case e.CockroachDB():
			times = times[2:]
		}
		for i, at := range times {
			tb.Insert(fmt.Sprint("job ", i), "b", "2", "LOCKED", at)
		}
		all, err := l.List(t.Context())
		require.NoError(t, err)
		require.Len(t, all, len(times))
		for i, s := range all {
			_, err := json.Marshal(s)
			require.NoError(t, err, times[i])
			require.True(t, s.Locked)
			one, err := l.Status(t.Context(), component, s.JobName)
			require.NoError(t, err, times[i])
			require.Equal(t, s.Holder.LockTime, one.Holder.LockTime)
			require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(component, "a", s.JobName, "1", 0), times[i])
			require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock(component, "a", s.JobName, "1"), times[i])
			// Expired or not, the answer is consistent, and the holder can be released.
			if err := l.Lock(component, "a", s.JobName, "1", time.Hour); err == nil {
				require.NoError(t, l.Unlock(component, "a", s.JobName, "1"))
			} else {
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
				require.NoError(t, l.ForceRelease(t.Context(), component, s.JobName, s.Holder), times[i])
			}
			require.NoError(t, l.Delete(t.Context(), component, s.JobName), times[i])
		}
	})
}

// table is a CREATE TABLE with some columns changed.
func table(changes ...string) string {
	columns := map[string]string{"component_name": "TEXT", "component_id": "TEXT", "job_name": "TEXT",
		"job_id":  "TEXT",
		"enabled": "BOOL", "status": "TEXT", "lock_time": "TIMESTAMPTZ"}
	for _, c := range changes {
		name, typ, _ := strings.Cut(c, " ")
		columns[name] = typ
	}
	s := "CREATE TABLE locks ("
	for _, name := range []string{"component_name", "component_id", "job_name", "job_id", "enabled",
		"status", "lock_time"} {
		s += name + " " + columns[name] + ", "
	}
	return s + "PRIMARY KEY (component_name, job_name))"
}

func TestLock_columnsOfAnotherType(t *testing.T) {
	for name, test := range map[string]struct {
		setup   []string
		works   bool   // else each acquisition is an error, or never grants two
		problem string // what CheckTable says
	}{
		"VARCHAR": {[]string{table("component_name VARCHAR(100)", "component_id VARCHAR(100)",
			"job_name VARCHAR(100)", "job_id VARCHAR(100)", "status VARCHAR(20)")}, true, ""},
		"enum": {[]string{"CREATE TYPE lock_status AS ENUM ('UNLOCKED', 'LOCKED')",
			table("status lock_status")}, true, ""},
		"domain": {[]string{"CREATE DOMAIN name_of AS TEXT CHECK (length(VALUE) < 100)",
			table("component_name name_of", "component_id name_of", "job_name name_of", "job_id name_of",
				"status name_of")}, true, ""},
		"domain of the time": {[]string{"CREATE DOMAIN moment AS TIMESTAMPTZ",
			table("lock_time moment")}, true, ""},
		"CHAR(20) of the IDs": {[]string{table("component_id CHAR(20)", "job_id CHAR(20)")}, true,
			"pads its values"},
		"CHAR(20) of all": {[]string{table("component_name CHAR(20)", "component_id CHAR(20)",
			"job_name CHAR(20)", "job_id CHAR(20)", "status CHAR(20)")}, true, "pads its values"},
		"TIMESTAMP": {[]string{table("lock_time TIMESTAMP")}, false, "make it TIMESTAMPTZ"},
		"no key": {[]string{strings.Replace(table(),
			", PRIMARY KEY (component_name, job_name)", "", 1)}, false, "no primary key"},
		"unique index": {[]string{strings.Replace(table(),
			", PRIMARY KEY (component_name, job_name)", "", 1), "CREATE UNIQUE INDEX ON locks (job_name, " +
			"component_name)"}, true, ""},
		"partial index": {[]string{strings.Replace(table(),
			", PRIMARY KEY (component_name, job_name)", "", 1), "CREATE UNIQUE INDEX ON locks (job_name, " +
			"component_name) WHERE enabled"}, false, "no primary key"},
		"another order": {[]string{"CREATE TABLE locks (component_name TEXT, job_name TEXT, " +
			"component_id TEXT, job_id TEXT, enabled BOOL, status TEXT, lock_time TIMESTAMPTZ, PRIMARY " +
			"KEY (component_name, job_name))"}, true, "in that order"},
	} {
		t.Run(name, func(t *testing.T) {
			onPostgres(t, func(t *testing.T, e dbtest.Engine) {
				tb := dbtest.NewTable(t, e)
				dbtest.Exec(t, tb.DSN, test.setup...)
				l := tb.Lock()
				if err := l.CheckTable(t.Context()); test.problem == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, test.problem)
				}
				if test.works {
					everyAnswer(t, l)
					return
				}
				for _, id := range []string{"a", "b"} {
					err := l.Lock(component, id, job, "1", time.Hour)
					require.Error(t, err)
					require.NotErrorIs(t, err, lock.ErrRefused)
				}
			})
		})
	}
}

// TestLock_Lock_tokenThatCannotGrow: half of the tokens would be equal.
func TestLock_Lock_tokenThatCannotGrow(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		dbtest.Exec(t, tb.DSN, table("lock_time TIMESTAMPTZ(3)"))
		l := tb.Lock()
		require.ErrorContains(t, l.CheckTable(t.Context()), "timestamp(3) with time zone")
		tb.Insert(job, "b", "2", "UNLOCKED", "clock_timestamp() + interval '1 hour'")
		err := l.Lock(component, "a", job, "1", time.Hour)
		require.ErrorContains(t, err, "the column must keep microseconds")
		s, err := l.Status(t.Context(), component, job)
		require.NoError(t, err)
		require.False(t, s.Locked, "it is given back")
	})
}

func TestLock_rowLevelSecurity(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		owner := tb.Lock()
		role := newRole(tb)
		role.owner("GRANT SELECT, INSERT, UPDATE, DELETE ON locks TO "+role.name,
			"ALTER TABLE locks ENABLE ROW LEVEL SECURITY")
		l := lock.New(e.OpenDSN(t, role.dsn))
		require.NoError(t, owner.Lock(component, "a", job, "1", 0))
		require.NoError(t, owner.Disable(component, job))
		_, err := l.Status(t.Context(), component, job)
		for call, err := range map[string]error{
			"Status": err, "Unlock": l.Unlock(component, "a", job, "1"), "Lock": l.Lock(component, "a", job,
				"1", 0),
			"CheckTable": l.CheckTable(t.Context()), "Delete": l.Delete(t.Context(), component, job),
		} {
			require.ErrorContains(t, err, "row-level security", call)
			require.NotErrorIs(t, err, lock.ErrRefused)
		}
		require.NoError(t, owner.Unlock(component, "a", job, "1"))
	})
}

func TestLock_CheckTable(t *testing.T) {
	e := dbtest.PostgreSQL[0]
	t.Run("second table on the search path", func(t *testing.T) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		u, err := url.Parse(tb.DSN)
		require.NoError(t, err)
		schema := u.Query().Get("search_path")
		dbtest.Exec(t, tb.DSN, "CREATE SCHEMA first_"+schema)
		tb.DSN = strings.Replace(tb.DSN, "search_path=", "search_path=first_"+schema+",", 1)
		db := e.OpenDSN(t, tb.DSN)
		l, err := lock.NewWith(db, lock.Options{NoDDL: true})
		require.NoError(t, err)
		require.ErrorContains(t, l.CheckTable(t.Context()), "a new table would go to the schema")
		lock.New(db) // makes a table there
		require.ErrorContains(t, l.CheckTable(t.Context()), "second table")
		named, err := lock.NewWith(tb.DB, lock.Options{Schema: schema})
		require.NoError(t, err)
		require.NoError(t, named.CheckTable(t.Context()))
	})
	t.Run("rights and read-only", func(t *testing.T) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		role := newRole(tb)
		role.owner("GRANT SELECT ON locks TO "+role.name,
			"ALTER ROLE "+role.name+" SET default_transaction_read_only = on")
		err := lock.New(e.OpenDSN(t, role.dsn)).CheckTable(t.Context())
		require.ErrorContains(t, err, "may not INSERT")
		require.ErrorContains(t, err, "may not UPDATE")
		require.ErrorContains(t, err, "can only read")
	})
	t.Run("encoding", func(t *testing.T) {
		dsn := dbtest.StartPostgres(t).DSN()
		dbtest.Exec(t, dsn,
			"CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
		t.Cleanup(func() { dbtest.Exec(t, dsn, "DROP DATABASE latin") })
		db := e.OpenDSN(t, strings.Replace(dsn, "/postgres?", "/latin?", 1))
		t.Cleanup(func() { db.Close() })
		l := lock.New(db)
		require.ErrorContains(t, l.CheckTable(t.Context()), "the encoding of the database is LATIN1")
		require.NoError(t, l.Lock(component, "é", job, "1", 0))
		require.Equal(t, []string{"22P05"}, codes(l.Lock(component, "🔒", job, "1", 0)))
	})
	t.Run("missing", func(t *testing.T) {
		l, err := lock.NewWith(e.Open(t), lock.Options{NoDDL: true})
		require.NoError(t, err)
		require.ErrorContains(t, l.CheckTable(t.Context()), "does not exist")
	})
	t.Run("SQLite", func(t *testing.T) {
		private := dbtest.Engine{Driver: "sqlite"}.OpenDSN(t, ":memory:")
		private.SetMaxOpenConns(1)
		require.ErrorContains(t, lock.New(private).CheckTable(t.Context()),
			"each connection may have one of its own")
		tb := dbtest.NewTable(t, engines[0])
		_, err := tb.Exec("CREATE TABLE locks (component_name INT, component_id TEXT, job_name TEXT, " +
			"job_id TEXT, enabled BOOL, status TEXT, lock_time TEXT)")
		require.NoError(t, err)
		err = tb.Lock().CheckTable(t.Context())
		for _, says := range []string{"component_name has the type INT", "lock_time has the type TEXT",
			"no primary key"} {
			require.ErrorContains(t, err, says)
		}
	})
}

// TestOptions_Table: a table may have any name, also that of anything within the statements.
func TestOptions_Table(t *testing.T) {
	for _, e := range []dbtest.Engine{engines[0], dbtest.PostgreSQL[0]} {
		t.Run(e.Name, func(t *testing.T) {
			file := map[lock.Dialect]string{lock.SQLite: "sqlite", lock.PostgreSQL: "postgres"}[e.Dialect()]
			text, err := os.ReadFile(filepath.Join("..", "sql", file+".sql"))
			require.NoError(t, err)
			names := regexp.MustCompile(`[A-Za-z_]+`).FindAllString(regexp.MustCompile(`--[^\n]*`).
				ReplaceAllString(string(text), ""), -1)
			names = append(names, "Job Locks", `a"b`, "a.b", "'; DROP TABLE locks; --", "$1", "%s", "ü",
				"{x}", strings.Repeat("l", 63))
			slices.Sort(names)
			db := e.Open(t)
			var refused []string
			for _, name := range slices.Compact(names) {
				if strings.HasPrefix(name, "pg_") || strings.HasPrefix(name, "pragma_") {
					continue // of the catalog, which comes first
				}
				l, err := lock.NewWith(db, lock.Options{Table: name, Dialect: e.Dialect()})
				if err != nil {
					refused = append(refused, name)
					continue
				}
				require.NoError(t, l.Lock(component, "a", job, "1", time.Hour), name)
				require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(component, "b", job, "2", time.Hour), name)
				require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock(component, "b", job, "2"), name)
				require.NoError(t, l.Unlock(component, "a", job, "1"), name)
				lease, err := l.Acquire(t.Context(), as("a", "3"))
				require.NoError(t, err, name)
				require.NoError(t, lease.Renew(t.Context()), name)
				require.NoError(t, tableCheck(t, db, lease), name)
				require.NoError(t, lease.Release(t.Context()), name)
				require.NoError(t, l.Enable(component, job), name)
				all, err := l.List(t.Context())
				require.NoError(t, err, name)
				require.Len(t, all, 1, name)
				require.NoError(t, l.CheckTable(t.Context()), name)
				require.NoError(t, l.Delete(t.Context(), component, job), name)
				_, err = db.Exec(`DROP TABLE "` + strings.ReplaceAll(name, `"`, `""`) + `"`)
				require.NoError(t, err, name)
			}
			for _, name := range refused {
				require.True(t, strings.HasPrefix(name, "this_"), name)
			}
		})
	}
}

func tableCheck(t *testing.T, db *sql.DB, lease *lock.Lease) error {
	tx := inTx(t, db)
	defer tx.Rollback()
	return lease.Check(t.Context(), tx)
}
