package locktick_test

import (
	"context"
	"database/sql"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// open returns a new database for the test.
func open(t *testing.T) *sql.DB {
	return dbtest.Engine{Driver: "postgres", DSN: dbtest.PostgresDSN()}.Open(t)
}

func TestGuard_Run_database(t *testing.T) {
	db := open(t)
	f := ticktest.NewFleet(lock.New(db))
	const ticks = 6
	for i := range ticks {
		tick := noon.Add(time.Duration(i) * time.Minute)
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() { f.Guard(0).Run(t.Context(), tick, f.Run) })
		}
		all.Wait()
	}
	f.RequireEachOnce(t, locktick.Every(time.Minute), noon.Add(-1), noon.Add(ticks*time.Minute))
	require.Equal(t, ticks, f.Told()[locktick.Ran])
	require.Equal(t, 11*ticks, f.Told()[locktick.AlreadyRun]+f.Told()[locktick.Running])
}

func TestGuard_Run_database_holder_dies(t *testing.T) {
	db := open(t)
	l := lock.New(db)
	g, _ := guard(l)
	// One that neither renews its lease any more nor releases it.
	ctx, die := context.WithCancel(t.Context())
	dead := g.Job
	dead.ComponentID, dead.Tick = "dead", noon
	lease, err := l.Acquire(ctx, dead)
	require.NoError(t, err)
	die()
	<-lease.Context().Done()

	r := g.Run(t.Context(), noon.Add(time.Minute), nothing)
	require.Equal(t, locktick.Held, r.Outcome, r.Err)
	holder, _ := r.Holder()
	require.Contains(t, holder.ComponentID, "dead/")
	require.Equal(t, locktick.Running, g.Run(t.Context(), noon, nothing).Outcome)

	_, err = db.Exec("UPDATE locks SET lock_time = lock_time - INTERVAL '1 hour'")
	require.NoError(t, err)
	r = g.Run(t.Context(), noon, func(ctx context.Context) error {
		require.Contains(t, lock.LeaseFrom(ctx).TakenFrom().ComponentID, "dead/")
		return nil
	})
	require.Equal(t, locktick.Ran, r.Outcome, r.Err)
	require.NoError(t, r.Err)
	require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), noon, nothing).Outcome)
}
