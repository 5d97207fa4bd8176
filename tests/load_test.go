package tests

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// TestLock_thousandInstances lets 1,000 instances, of 10 processes with a pool of 20 connections
// each, compete for 100 jobs until each job has run ten times.
func TestLock_thousandInstances(t *testing.T) {
	if testing.Short() {
		t.Skip("it is a load test")
	}
	const processes, instances, jobs, runs, pool = 10, 1000, 100, 10, 20
	e := dbtest.Engine{Driver: "pgx", DSN: dbtest.PostgresDSN()}
	dsn := e.DSN(t)
	var locks [processes]*lock.Lock
	for i := range locks {
		db := e.OpenDSN(t, dsn)
		db.SetMaxOpenConns(pool - 1) // one of the server's 200 is for others
		locks[i] = lock.New(db)
	}
	var (
		inside, done    [jobs]atomic.Int64
		granted, others atomic.Int64
		all             sync.WaitGroup
	)
	begun := time.Now()
	for i := range instances {
		all.Go(func() {
			l, id := locks[i%processes], fmt.Sprint("instance-", i)
			for run := 0; ; run++ {
				j := -1
				for k := range jobs {
					if k = (k + i) % jobs; done[k].Load() < runs {
						j = k
						break
					}
				}
				if j < 0 {
					return
				}
				job := fmt.Sprint("job-", j)
				switch err := l.Lock("shop", id, job, fmt.Sprint(run), time.Hour); {
				case err == nil:
					if n := inside[j].Add(1); n != 1 {
						t.Errorf("%d instances are at work", n)
					}
					granted.Add(1)
					done[j].Add(1)
					inside[j].Add(-1)
					if err := l.Unlock("shop", id, job, fmt.Sprint(run)); err != nil {
						t.Error(err)
					}
				case errors.As(err, new(*lock.ErrUnauthorised)):
					others.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	calls := 2*granted.Load() + others.Load()
	t.Logf("%d calls in %v, %.0f a second: %d granted, %d refused", calls,
		took.Round(time.Millisecond), float64(calls)/took.Seconds(), granted.Load(), others.Load())
	for j := range done {
		require.GreaterOrEqual(t, done[j].Load(), int64(runs))
	}
}

// TestLock_exhaustedPool: a call waits for a connection, within its context, and a clear error ends
// the wait. Nobody is stuck after it.
func TestLock_exhaustedPool(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		db := e.Open(t)
		db.SetMaxOpenConns(2)
		l := lock.New(db)
		var held [2]interface{ Close() error }
		for i := range held {
			conn, err := db.Conn(context.Background())
			require.NoError(t, err)
			held[i] = conn
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err := l.LockContext(ctx, component, "a", job, "1", time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, errors.Is(err, lock.ErrOutcomeUnknown), "it was not sent")

		const waiting = 50
		errs := make(chan error, waiting)
		for i := range waiting {
			go func() { errs <- l.Lock(component, instance(i), fmt.Sprint("job-", i), "1", time.Hour) }()
		}
		require.Eventually(t, func() bool { return db.Stats().WaitCount > waiting/2 }, time.Minute,
			time.Millisecond)
		for _, conn := range held {
			require.NoError(t, conn.Close())
		}
		for range waiting {
			require.NoError(t, <-errs)
		}
	})
}
