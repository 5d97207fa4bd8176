package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// modes are the drivers' modes for pgbouncer in transaction mode, where each transaction may have
// another connection to the server.
var modes = []struct {
	name   string
	driver string
	params []string
	names  bool // prepares statements under names, for later
	parts  bool // prepares and runs a statement in two transactions
}{
	{name: "lib_pq", driver: "postgres", parts: true},
	{name: "lib_pq, binary_parameters", driver: "postgres", params: []string{"binary_parameters=yes"}},
	{name: "pgx", driver: "pgx", names: true}, // which is default_query_exec_mode=cache_statement
	{name: "pgx, cache_describe", driver: "pgx",
		params: []string{"default_query_exec_mode=cache_describe"}},
	{name: "pgx, describe_exec", driver: "pgx",
		params: []string{"default_query_exec_mode=describe_exec"}, parts: true},
	{name: "pgx, exec", driver: "pgx", params: []string{"default_query_exec_mode=exec"}},
	{name: "pgx, simple_protocol", driver: "pgx",
		params: []string{"default_query_exec_mode=simple_protocol"}},
}

func TestLock_pgBouncer(t *testing.T) {
	b := sharedPgBouncer(t)
	for _, m := range modes {
		if m.parts || m.names && !b.tracks {
			continue // see TestLock_Lock_pgBouncerLosesStatements
		}
		t.Run(m.name, func(t *testing.T) {
			direct := newDatabase(t)
			tryAll(t, stack{m.name, func(t *testing.T, p place) service {
				return plain(p.open(t, m.driver,
					m.params...))
			}},
				b.place(direct), direct)
		})
	}
}

// TestLease_Renew_connectionLost: the next renewal has another connection to the server, and the
// old one is gone.
func TestLease_Renew_connectionLost(t *testing.T) {
	b := sharedPgBouncer(t)
	direct := newDatabase(t)
	admin := direct.open(t, "pgx")
	for _, m := range modes {
		if m.parts || m.names && !b.tracks {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			db := b.place(direct).open(t, m.driver, m.params...)
			db.SetMaxOpenConns(1)
			ctx := patient(t)
			lease, err := lock.New(db).Acquire(ctx, lock.Job{ComponentName: "shop", JobName: m.name,
				TTL: time.Hour})
			require.NoError(t, err)
			backend := func() (pid int) {
				require.NoError(t, db.QueryRow("SELECT pg_backend_pid()").Scan(&pid))
				return pid
			}
			for range 5 {
				pid := backend()
				mustExec(t, admin, "SELECT pg_terminate_backend($1, 10000)", pid)
				require.NoError(t, lease.Renew(ctx))
				require.NotEqual(t, pid, backend())
			}
			require.NoError(t, lease.Release(ctx))
		})
	}
}

// TestLock_Unlock_pgBouncerRestarts: it is retried until pgbouncer is back.
func TestLock_Unlock_pgBouncerRestarts(t *testing.T) {
	tracks := sharedPgBouncer(t).tracks
	direct := newDatabase(t)
	for _, m := range modes {
		if m.parts || m.names && !tracks {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			b, err := startPgBouncer(direct.port)
			require.NoError(t, err)
			defer b.close()
			var d dialled
			d.attempt = make(chan struct{}, 1)
			db := keep(t, d.open(t, m.driver, b.place(direct).dsn(m.params...)))
			impatient, err := lock.NewWith(db, lock.Options{Retry: lock.RetryPolicy{Attempts: 1}})
			require.NoError(t, err)
			l := lock.New(db)
			require.NoError(t, l.Lock("shop", "a", "job", "1", time.Hour))

			b.stop()
			require.Error(t, impatient.Lock("shop", "a", "job", "1", time.Hour), "pgbouncer is away")
			for len(d.attempt) > 0 {
				<-d.attempt
			}
			answer := make(chan error)
			go func() { answer <- l.Unlock("shop", "a", "job", "1") }()
			<-d.attempt // in vain
			require.NoError(t, b.run())
			require.NoError(t, <-answer)
			require.NoError(t, l.Lock("shop", "b", "job", "2", time.Hour))
			require.NoError(t, l.Unlock("shop", "b", "job", "2"))
		})
	}
}

// TestLock_Lock_pgBouncerLosesStatements shows how the two modes fail that need the same
// connection.
func TestLock_Lock_pgBouncerLosesStatements(t *testing.T) {
	t.Run("pgx, cache_statement", func(t *testing.T) {
		b := sharedPgBouncer(t)
		if b.tracks {
			t.Skip("this pgbouncer prepares the statements of its clients wherever they are needed")
		}
		direct := newDatabase(t)
		db := b.place(direct).open(t, "pgx")
		db.SetMaxOpenConns(1)
		l := lock.New(db)
		impatient, err := lock.NewWith(db, lock.Options{Retry: lock.RetryPolicy{Attempts: 1}})
		require.NoError(t, err)
		require.NoError(t, l.Lock("shop", "a", "job", "1", time.Hour))
		// Another client's transaction has the connection on which the statement was prepared.
		tx, err := b.place(direct).open(t, "pgx", "default_query_exec_mode=exec").Begin()
		require.NoError(t, err)
		defer tx.Rollback()
		_, err = tx.Exec("SELECT 1")
		require.NoError(t, err)
		require.ErrorContains(t, impatient.Lock("shop", "a", "job", "1", time.Hour),
			"does not exist (SQLSTATE 26000)")
		require.NoError(t, l.Lock("shop", "a", "job", "1", time.Hour), "it is tried again")
	})
	for _, m := range modes {
		if !m.parts {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			sharedPgBouncer(t)
			direct := newDatabase(t)
			admin := direct.open(t, "pgx")
			mustExec(t, admin, `CREATE TABLE results (run TEXT)`)
			b, err := startPgBouncer(direct.port, "default_pool_size=1")
			require.NoError(t, err)
			defer b.close()
			var d dialled
			l, err := lock.NewWith(d.open(t, m.driver, b.place(direct).dsn(m.params...)),
				lock.Options{Retry: lock.RetryPolicy{Attempts: 1}})
			require.NoError(t, err)
			other := b.place(direct).open(t, "postgres", "binary_parameters=yes")

			d.beforeBind = func() { mustExec(t, other, insert, "other's") }
			err = l.Lock("shop", "a", "job", "1", time.Hour)
			t.Log(err)
			require.ErrorContains(t, err, `prepared statement "" requires 1`)

			// A statement with as many arguments is executed, with ours.
			d.beforeBind = func() {
				mustExec(t, other,
					`INSERT INTO results (run) VALUES (concat_ws(' ', $1::text, $2::text, $3::text,
	$4::text, $5::text, $6::text, $7::text, $8::text))`,
					"this", "is", "not", "the", "lock's", "own", "at", "all")
			}
			require.NoError(t, l.Lock("shop", "a", "job", "1", time.Hour),
				"what has no answer is sent again")
			var n int
			require.NoError(t,
				admin.QueryRow(`SELECT count(*) FROM results WHERE run = 'shop a job 1 3600000000'`).Scan(&n))
			require.Equal(t, 1, n)
		})
	}
}

// dialled opens pools whose connections it watches.
type dialled struct {
	attempt chan struct{} // is sent to before each attempt to connect, if there is room
	// is called once, before a message to bind a statement's arguments is sent on its own
	beforeBind func()
}

func (d *dialled) open(t *testing.T, driver, dsn string) *sql.DB {
	var db *sql.DB
	if driver == "pgx" {
		config, err := pgx.ParseConfig(dsn)
		require.NoError(t, err)
		config.DialFunc = d.DialContext
		db = stdlib.OpenDB(*config)
	} else {
		connector, err := pq.NewConnector(dsn)
		require.NoError(t, err)
		connector.Dialer(d)
		db = sql.OpenDB(connector)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (d *dialled) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	select {
	case d.attempt <- struct{}{}:
	default:
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &dialledConn{conn, d}, err
}

func (d *dialled) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d *dialled) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

type dialledConn struct {
	net.Conn
	d *dialled
}

func (c *dialledConn) Write(b []byte) (int, error) {
	if between := c.d.beforeBind; between != nil && b[0] == 'B' {
		c.d.beforeBind = nil
		between()
	}
	return c.Conn.Write(b)
}

// A bouncer is a pgbouncer in transaction mode, in its own folder and on its own port, that
// accepts every user without a password.
type bouncer struct {
	port int
	// it knows which statements its clients have prepared, and prepares them where they are
	// missing
	tracks bool
	bin    string
	dir    string
	login  *syscall.Credential
	guard  *exec.Cmd
	stdin  io.WriteCloser
}

var shared struct {
	sync.Once
	*bouncer
	err error
}

var errNoPgBouncer = errors.New("pgbouncer is neither on PATH nor in /usr/sbin")

// sharedPgBouncer returns the pgbouncer that most tests share. If there is none, it skips the
// test or, if the test is required, fails it.
func sharedPgBouncer(t *testing.T) *bouncer {
	s := dbtest.StartPostgres(t)
	shared.Do(func() {
		if shared.bouncer, shared.err = startPgBouncer(s.Port); shared.err == nil {
			dbtest.AtEnd(shared.close)
		}
	})
	if errors.Is(shared.err, errNoPgBouncer) && os.Getenv("LOCK_TEST_PGBOUNCER") != "required" {
		dbtest.LeaveOut(t, shared.err.Error())
	}
	require.NoError(t, shared.err)
	return shared.bouncer
}

// startPgBouncer starts a pgbouncer for the PostgreSQL at a port, with settings such as
// "default_pool_size=1".
func startPgBouncer(postgres int, settings ...string) (*bouncer, error) {
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		bin = "/usr/sbin/pgbouncer"
		if _, err := os.Stat(bin); err != nil {
			return nil, errNoPgBouncer
		}
	}
	b := &bouncer{bin: bin}
	out, err := exec.Command(bin, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("pgbouncer --version: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		return nil, fmt.Errorf("pgbouncer --version says %q: %w", out, err)
	}
	if b.tracks = major > 1 || minor >= 21; b.tracks {
		settings = append(settings, "max_prepared_statements=200")
	}
	if b.dir, err = os.MkdirTemp("", "pgbouncer"); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	ini := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 4
ignore_startup_parameters = extra_float_digits
`, postgres, b.port) + strings.Join(settings, "\n") + "\n"
	if err := os.WriteFile(b.ini(), []byte(ini), 0o644); err != nil {
		return nil, err
	}
	// pgbouncer refuses to run as root.
	if os.Geteuid() == 0 {
		account, err := user.Lookup("nobody")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		b.login = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(b.dir, uid, gid); err != nil {
			return nil, err
		}
	}
	if err := b.run(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *bouncer) ini() string { return filepath.Join(b.dir, "pgbouncer.ini") }

// guard stops pgbouncer when its standard input ends, at the latest with the test process. Only
// after stop it keeps the folder. It uses no signals, which differ between versions.
const guard = `"$@" >log 2>&1 </dev/null &
read word
kill -KILL $!
wait $!
[ "$word" = keep ] || rm -rf "$PWD"`

// run starts pgbouncer, also after stop, and returns when it accepts connections.
func (b *bouncer) run() error {
	b.guard = exec.Command("sh", "-c", guard, "sh", b.bin, b.ini())
	b.guard.Dir = b.dir
	b.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: b.login}
	stdin, err := b.guard.StdinPipe()
	if err != nil {
		return err
	}
	b.stdin = stdin
	if err := b.guard.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
		if err == nil {
			conn.Close()
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			b.close()
			return fmt.Errorf("pgbouncer did not start within a minute: %s", log)
		}
	}
}

// stop stops pgbouncer at once and cuts its connections. It can run again.
func (b *bouncer) stop() {
	io.WriteString(b.stdin, "keep\n")
	b.close()
}

// close stops pgbouncer for good, unless it is stopped.
func (b *bouncer) close() {
	b.stdin.Close()
	b.guard.Wait()
}

// place returns the place of the database behind pgbouncer.
func (b *bouncer) place(direct place) place {
	direct.port = b.port
	return direct
}
