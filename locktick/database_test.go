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

// open returns a database of the test's own.
func open(t *testing.T) *sql.DB {
	return dbtest.Engine{Driver: "postgres", DSN: dbtest.PostgresDSN()}.Open(t)
}

func TestOnADatabaseEachTickIsRunOnce(t *testing.T) {
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
	require.Equal(t, map[locktick.Outcome]int{locktick.Ran: ticks, locktick.AlreadyRun: 11 * ticks}, f.told)
}

func TestOnADatabaseATickWhoseHolderDiesIsRunByAnother(t *testing.T) {
	db := open(t)
	l := lock.New(db)
	g, _ := guard(l)
	// One that neither renews its lease any more nor releases it.
	ctx, die := context.WithCancel(t.Context())
	dead := g.Job
	dead.ComponentID, dead.JobID, dead.Once = "dead", lock.Tick(noon), true
	lease, err := l.Acquire(ctx, dead)
	require.NoError(t, err)
	die()
	<-lease.Context().Done()

	r := g.Run(t.Context(), noon.Add(time.Minute), nothing)
	require.Equal(t, locktick.Held, r.Outcome, r.Err)
	holder, _ := r.Holder()
	require.Equal(t, "dead", holder.ComponentID)
	require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), noon, nothing).Outcome)

	_, err = db.Exec("UPDATE locks SET lock_time = lock_time - INTERVAL '1 hour'")
	require.NoError(t, err)
	r = g.Run(t.Context(), noon, func(ctx context.Context) error {
		require.Equal(t, "dead", lock.LeaseFrom(ctx).TakenFrom().ComponentID)
		return nil
	})
	require.Equal(t, locktick.Ran, r.Outcome, r.Err)
	require.NoError(t, r.Err)
	require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), noon, nothing).Outcome)
}

func TestOnADatabaseThatIsAwayNothingIsRun(t *testing.T) {
	db := open(t)
	g, told := guard(lock.New(db))
	require.NoError(t, db.Close())
	r := g.Run(t.Context(), noon, func(context.Context) error { panic("it runs without the lock") })
	require.Equal(t, locktick.Failed, r.Outcome)
	require.ErrorContains(t, r.Err, "database is closed")
	require.Len(t, *told, 1)
}

func TestOnADatabaseARequestToAllInstancesIsRunOnce(t *testing.T) {
	db := open(t)
	f := newFleet(lock.New(db))
	var statuses sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		instance := httptest.NewServer(f.guard(0).Handler(locktick.FromHeader("Tick"), f.run))
		defer instance.Close()
		all.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, instance.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Tick", lock.Tick(noon))
			response, err := instance.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			response.Body.Close()
			statuses.Store(i, response.StatusCode)
		})
	}
	all.Wait()
	statuses.Range(func(_, status any) bool { return assertOK(t, status) })
	f.requireEachOnce(t, locktick.Every(time.Hour), noon, noon)
	require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 1, locktick.AlreadyRun: 7}, f.told)
}

func assertOK(t *testing.T, status any) bool {
	require.Equal(t, http.StatusOK, status)
	return true
}

// lossy loses the replies to what takes a lock, after it was carried out.
type lossy struct{ *sql.DB }

func (l lossy) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if !strings.Contains(query, "INSERT") {
		return l.DB.QueryRowContext(ctx, query, args...)
	}
	columns := make([]any, 8)
	for i := range columns {
		columns[i] = new(any)
	}
	if err := l.DB.QueryRowContext(ctx, query, args...).Scan(columns...); err != nil {
		panic(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	return l.DB.QueryRowContext(over, query, args...)
}

func TestOnADatabaseWhoseReplyIsLostNoLockIsLeftBehind(t *testing.T) {
	db := open(t)
	g, _ := guard(lock.New(lossy{db}))
	g.Job.ComponentID = "this"
	r := g.Run(t.Context(), noon, func(context.Context) error { panic("it runs without the lock") })
	require.Equal(t, locktick.Failed, r.Outcome)
	require.ErrorIs(t, r.Err, lock.ErrOutcomeUnknown)
	s, err := lock.New(db).Status(t.Context(), "shop", "report")
	require.NoError(t, err)
	require.Equal(t, lock.Tick(noon), s.Holder.JobID, "it was carried out")
	require.False(t, s.Locked)
}
