package locknotify_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
	"github.com/cloudtrust/go-jobs/lock/locknotify"
)

var server = sync.OnceValues(func() (*pgtest.Server, error) { return pgtest.Start() })

func TestMain(m *testing.M) {
	code := m.Run()
	if s, err := server(); err == nil {
		s.Close()
	} else if pgtest.Dispensable(err) {
		fmt.Println("left out, since PostgreSQL is not installed: all that listens")
	}
	os.Exit(code)
}

func dsn(t testing.TB) string {
	s, err := server()
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return s.DSN()
}

// open returns a database whose table is new.
func open(t testing.TB) *sql.DB {
	db, err := sql.Open("postgres", dsn(t)+"&binary_parameters=yes")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	_, err = db.Exec("DROP TABLE IF EXISTS locks")
	require.NoError(t, err)
	return db
}

// counted is a database that reports each statement of a Lock.
type counted struct {
	*sql.DB
	sent chan struct{}
}

func (c counted) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	row := c.DB.QueryRowContext(ctx, query, args...)
	c.sent <- struct{}{}
	return row
}

// listening returns a Notifier that is known to listen.
func listening(t testing.TB, o locknotify.Options) *locknotify.Notifier {
	n, err := locknotify.New(dsn(t), o)
	require.NoError(t, err)
	t.Cleanup(n.Close)
	heard := make(chan struct{}, 100)
	stop := n.Subscribe("", "", func() { heard <- struct{}{} })
	<-heard
	stop()
	return n
}

// process returns a Lock with its own Notifier, as in another process.
func process(t testing.TB, db lock.Storage, o locknotify.Options) *lock.Lock {
	l, err := lock.NewWith(db, lock.Options{Notifier: listening(t, o)})
	require.NoError(t, err)
	return l
}

// A waiter is a process that waits for locks.
type waiter struct {
	l    *lock.Lock
	sent chan struct{}
}

func newWaiter(t testing.TB, db *sql.DB, o locknotify.Options) waiter {
	sent := make(chan struct{}, 100)
	return waiter{process(t, counted{db, sent}, o), sent}
}

// wait acquires the lock in the background, and returns when it has been refused twice: before it
// subscribes, and after. From then on it must be woken.
func (w waiter) wait(t testing.TB) <-chan *lock.Lease {
	acquired := make(chan *lock.Lease, 1)
	for len(w.sent) > 0 {
		<-w.sent
	}
	go func() {
		le, err := w.l.Acquire(context.Background(), lock.Job{ComponentName: "shop", JobName: "backup",
			TTL: lock.Forever, Wait: lock.Forever, Poll: time.Hour})
		if err != nil {
			t.Error(err)
		}
		acquired <- le
	}()
	<-w.sent
	<-w.sent
	return acquired
}

func hold(t testing.TB, l *lock.Lock) {
	require.NoError(t, l.Lock("shop", "holder", "backup", "run", 0))
}

func release(t testing.TB, l *lock.Lock) {
	require.NoError(t, l.Unlock("shop", "holder", "backup", "run"))
}

func got(t testing.TB, acquired <-chan *lock.Lease) {
	select {
	case le := <-acquired:
		require.NoError(t, le.Release(context.Background()))
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
}

func TestNotifier(t *testing.T) {
	t.Run("a release in another process", func(t *testing.T) {
		db := open(t)
		holder, waiter := process(t, db, locknotify.Options{}), newWaiter(t, db, locknotify.Options{})
		hold(t, holder)
		acquired := waiter.wait(t)
		release(t, holder)
		got(t, acquired)
	})
	t.Run("a release by SQL, with the trigger", func(t *testing.T) {
		db := open(t)
		o := locknotify.Options{ListenOnly: true}
		holder, waiter := process(t, db, o), newWaiter(t, db, o)
		_, err := db.Exec(locknotify.Trigger("locks"))
		require.NoError(t, err)
		hold(t, holder)
		acquired := waiter.wait(t)
		_, err = db.Exec("UPDATE locks SET status = 'UNLOCKED'")
		require.NoError(t, err)
		got(t, acquired)
	})
	t.Run("a release while the connection is lost", func(t *testing.T) {
		db := open(t)
		holder, waiter := lock.New(db), newWaiter(t, db, locknotify.Options{})
		hold(t, holder)
		acquired := waiter.wait(t)
		release(t, holder) // without a word
		_, err := db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE " +
			"'LISTEN%'")
		require.NoError(t, err)
		got(t, acquired)
	})
	t.Run("a release of any lock", func(t *testing.T) {
		ctx := context.Background()
		n := listening(t, locknotify.Options{})
		heard, marked := make(chan struct{}, 100), make(chan struct{}, 100)
		t.Cleanup(n.Subscribe("", "mark", func() { marked <- struct{}{} }))
		stop := n.SubscribeAll(func() { heard <- struct{}{} })
		require.NoError(t, n.Publish(ctx, "shop", "backup"))
		require.NoError(t, n.Publish(ctx, "", "mark"))
		<-marked
		<-heard
		<-heard
		stop()
		require.NoError(t, n.Publish(ctx, "", "mark"))
		<-marked
		require.Empty(t, heard)
	})
	t.Run("names that are too long for a payload", func(t *testing.T) {
		n := listening(t, locknotify.Options{})
		long := strings.Repeat("x", 9000)
		heard := make(chan struct{}, 100)
		t.Cleanup(n.Subscribe(long, "backup", func() { heard <- struct{}{} }))
		require.NoError(t, n.Publish(context.Background(), long, "backup"))
		<-heard
	})
	t.Run("others listen", func(t *testing.T) {
		db := open(t)
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, dsn(t))
		require.NoError(t, err)
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "LISTEN "+locknotify.DefaultChannel)
		require.NoError(t, err)
		l := process(t, db, locknotify.Options{})
		hold(t, l)
		release(t, l)
		notification, err := conn.WaitForNotification(ctx)
		require.NoError(t, err)
		require.JSONEq(t, `{"component": "shop", "job": "backup"}`, notification.Payload)
	})
}

func TestNew(t *testing.T) {
	_, err := locknotify.New("postgres://host:port/", locknotify.Options{})
	require.ErrorContains(t, err, "locknotify: ")
	_, err = locknotify.New("host=127.0.0.1", locknotify.Options{Channel: strings.Repeat("x", 64)})
	require.ErrorContains(t, err, "longer than 63 bytes")

	// A server that is away is not waited for.
	n, err := locknotify.New("host=127.0.0.1 port=1", locknotify.Options{})
	require.NoError(t, err)
	require.NoError(t, n.Publish(context.Background(), "shop", "backup"))
	n.Close()
}

// BenchmarkHandoff measures from a release to the return of the Acquire that waited for it, in
// another process. Its floor is a NOTIFY to a listening connection plus one acquisition. The two
// take turns.
func BenchmarkHandoff(b *testing.B) {
	db := open(b)
	holder, waiter := process(b, db, locknotify.Options{}), newWaiter(b, db, locknotify.Options{})
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn(b))
	require.NoError(b, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "LISTEN floor")
	require.NoError(b, err)
	var floor, took []time.Duration
	for b.Loop() {
		start := time.Now()
		_, err := db.Exec("NOTIFY floor")
		_, waited := conn.WaitForNotification(ctx)
		locked := holder.Lock("shop", "holder", "backup", "run", 0)
		floor = append(floor, time.Since(start))
		require.NoError(b, errors.Join(err, waited, locked))

		acquired := waiter.wait(b)
		start = time.Now()
		release(b, holder)
		le := <-acquired
		took = append(took, time.Since(start))
		require.NoError(b, le.Release(ctx))
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / 1e3
	}
	b.ReportMetric(median(floor), "µs-floor")
	b.ReportMetric(median(took), "µs-handoff")
	b.ReportMetric(median(took)/median(floor), "x-floor")
}
