package tests

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locknotify"
)

// counted counts the calls with a context that ask for a row, as those of leases do.
type counted struct {
	*sql.DB
	n atomic.Int64
}

func (c *counted) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	c.n.Add(1)
	return c.DB.QueryRowContext(ctx, query, args...)
}

// BenchmarkHandoff measures from a release to the return of the Acquire of one of n waiters, which
// are processes of their own but for the pool, and how many statements all of them send in the
// second that begins with the release.
func BenchmarkHandoff(b *testing.B) {
	for _, e := range []dbtest.Engine{
		{Name: "SQLite", Driver: "sqlite", DSN: sqliteDSN},
		{Name: "PostgreSQL", Driver: "pgx", DSN: durableDSN()},
		{Name: "PostgreSQL_notifier", Driver: "pgx", DSN: durableDSN()},
	} {
		for _, n := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", e.Name, n), func(b *testing.B) { handoff(b, e, n) })
		}
	}
}

func handoff(b *testing.B, e dbtest.Engine, waiters int) {
	dsn := e.DSN(b)
	db := &counted{DB: e.OpenDSN(b, dsn)}
	o := lock.Options{Dialect: e.Dialect()}
	if e.Name == "PostgreSQL_notifier" {
		notifier, err := locknotify.New(dsn, locknotify.Options{})
		require.NoError(b, err)
		defer notifier.Close()
		o.Notifier = notifier
	}
	ctx, cancel := context.WithCancel(context.Background())
	acquired := make(chan *lock.Lease)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range waiters + 1 {
		l, err := lock.NewWith(db, o)
		require.NoError(b, err)
		o.NoDDL = true
		all.Go(func() {
			for ctx.Err() == nil {
				le, err := l.Acquire(ctx, lock.Job{ComponentName: component, JobName: job, TTL: time.Hour,
					Wait: lock.Forever})
				if err == nil {
					acquired <- le
					<-le.Context().Done()
				}
			}
		})
	}
	le := <-acquired
	var took []time.Duration
	var statements []int64
	for b.Loop() {
		time.Sleep(time.Second) // the looks of those who wait spread
		before, start := db.n.Load(), time.Now()
		require.NoError(b, le.Release(ctx))
		le = <-acquired
		took = append(took, time.Since(start))
		time.Sleep(time.Until(start.Add(time.Second)))
		statements = append(statements, db.n.Load()-before)
	}
	require.NoError(b, le.Release(context.Background()))
	slices.Sort(took)
	slices.Sort(statements)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/handoff")
	b.ReportMetric(float64(statements[len(statements)/2]), "statements")
}
