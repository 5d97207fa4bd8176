package tests

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

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
