package locktick_test

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// open returns a new database for the test.
func open(t *testing.T) *sql.DB {
	return dbtest.Engine{Driver: "postgres", DSN: dbtest.PostgresDSN()}.Open(t)
}

func TestGuard_Run_database(t *testing.T) {
	db := open(t)
	f := newFleet(lock.New(db))
	const ticks = 6
	for i := range ticks {
		tick := noon.Add(time.Duration(i) * time.Minute)
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() { f.guard(0).Run(t.Context(), tick, f.run) })
		}
		all.Wait()
	}
	f.requireEachOnce(t, locktick.Every(time.Minute), noon, noon.Add((ticks-1)*time.Minute))
	require.Equal(t, ticks, f.told[locktick.Ran])
	require.Equal(t, 11*ticks, f.told[locktick.AlreadyRun]+f.told[locktick.Running])
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

func TestGuard_Run_database_away(t *testing.T) {
	db := open(t)
	g, told := guard(lock.New(db))
	require.NoError(t, db.Close())
	r := g.Run(t.Context(), noon, func(context.Context) error { panic("it runs without the lock") })
	require.Equal(t, locktick.Failed, r.Outcome)
	require.ErrorContains(t, r.Err, "database is closed")
	require.Len(t, *told, 1)
}

func TestGuard_Handler_database(t *testing.T) {
	f := newFleet(lock.New(open(t)))
	var mu sync.Mutex
	statuses := map[int]int{}
	began, goOn := make(chan struct{}), make(chan struct{})
	ask := func() {
		g := f.guard(0)
		g.Job.RetryFailed = true
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set("Tick", tickName(noon))
		g.Handler(locktick.FromHeader("Tick"), func(ctx context.Context) error {
			close(began)
			<-goOn
			return f.run(ctx)
		}).ServeHTTP(w, r)
		mu.Lock()
		defer mu.Unlock()
		statuses[w.Code]++
	}
	var first, all sync.WaitGroup
	first.Go(ask)
	<-began
	for range 7 {
		all.Go(ask)
	}
	all.Wait()
	require.Equal(t, map[int]int{http.StatusLocked: 7}, statuses,
		"it is not known yet what comes of the run")
	close(goOn)
	first.Wait()
	ask()
	require.Equal(t, map[int]int{http.StatusLocked: 7, http.StatusOK: 2}, statuses)
	f.requireEachOnce(t, locktick.Every(time.Hour), noon, noon)
}

// lossy loses the replies to acquisitions, after they were executed.
type lossy struct{ *sql.DB }

func (l lossy) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if !strings.Contains(query, "INSERT") {
		return l.DB.QueryRowContext(ctx, query, args...)
	}
	if _, err := l.DB.ExecContext(ctx, query, args...); err != nil {
		panic(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	return l.DB.QueryRowContext(over, query, args...)
}

func TestGuard_Run_database_lost_reply(t *testing.T) {
	db := open(t)
	g, _ := guard(lock.New(lossy{db}))
	g.Job.ComponentID = "this"
	r := g.Run(t.Context(), noon, func(context.Context) error { panic("it runs without the lock") })
	require.Equal(t, locktick.Failed, r.Outcome)
	require.ErrorIs(t, r.Err, lock.ErrOutcomeUnknown)
	s, err := lock.New(db).Status(t.Context(), "shop", "report")
	require.NoError(t, err)
	require.Contains(t, s.Holder.ComponentID, "this/", "it was carried out")
	require.False(t, s.Locked)
	g.Lock = lock.New(db)
	require.Equal(t, locktick.Ran, g.Run(t.Context(), noon, nothing).Outcome, "the tick is free")
}
