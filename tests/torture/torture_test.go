//go:build linux

package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

func TestMain(m *testing.M) {
	if Main() {
		return
	}
	code := m.Run()
	if c := started.Load(); c != nil {
		c.Close()
	}
	os.Exit(code)
}

// The tests share a server; that it isn't always the same process doesn't matter to them.
var (
	started atomic.Pointer[cluster]
	shared  = sync.OnceValues(func() (*cluster, error) {
		c, err := startCluster("", 3)
		if err == nil {
			started.Store(c)
		}
		return c, err
	})
)

func theCluster(t testing.TB) *cluster {
	c, err := shared()
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return c
}

// lines is a writer to the log of a test.
type lines struct{ t testing.TB }

func (l lines) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func options(t testing.TB) Options {
	exe, err := os.Executable()
	require.NoError(t, err)
	seed := rand.Uint64() >> 24
	t.Log("seed", seed)
	return Options{Dir: t.TempDir(), Exe: exe, Processes: 3, Goroutines: 6, Jobs: 12, Pause: 150 * time.Millisecond,
		Round: 4 * time.Second, Seed: seed, Out: lines{t}}
}

func torture(t testing.TB, o Options) Report {
	if o.URL == "" {
		o.in = theCluster(t)
	}
	report, err := Run(context.Background(), o)
	require.NoError(t, err)
	return report
}

// TestNoLockIsBrokenUnderFaults is the short form: the long one is go run ./tests/torture/cmd.
func TestNoLockIsBrokenUnderFaults(t *testing.T) {
	o := options(t)
	o.Faults, o.Rounds, o.FailOver = true, 2, 2 // the second round has a failover
	report := torture(t, o)
	report.Print(lines{t})
	require.Empty(t, report.Violations)
	require.Empty(t, report.Undecided)
	require.Equal(t, 1, report.Faults["failover to the synchronous standby"])
	require.Greater(t, report.Injected(), 5)
	require.NotZero(t, report.Kinds["Lock ok"])
	require.NotZero(t, report.Kinds["Write ok"])
}

// TestTheCheckerFindsTheGuilty runs clients with a bug each, without faults: the checker must find them out.
func TestTheCheckerFindsTheGuilty(t *testing.T) {
	for _, name := range []string{"old client", "non-atomic takeover", "client clock", "unlock without owner check", "renew after loss", "token that repeats"} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.Variant, o.Jobs, o.Round, o.StopEarly, o.Duration = name, 6, 2*time.Second, true, 45*time.Second
			o.Operations = 6_000 // on a machine that is busy, too
			o.Out = io.Discard
			report := torture(t, o)
			require.NotEmpty(t, report.Violations, "%d operations and nothing was found", report.Operations)
			t.Logf("guilty after %d operations, in %v", report.Guilty, report.Took.Round(time.Second/10))
			first := report.Violations[0]
			if first.History != nil {
				first.Print(lines{t}, o.Dir)
				pictures, err := os.ReadDir(o.Dir)
				require.NoError(t, err)
				require.NotEmpty(t, pictures)
			}
		})
	}
}

// TestFailover shows what a failover can lose, and what it can't. Nothing reaches the standby any more when the lock is taken, as
// with one that is behind.
func TestFailover(t *testing.T) {
	const job = "billing"
	take := func(c *cluster, id string, timeout time.Duration) error {
		db, err := open("pgx", c.dsn(0), nil)
		require.NoError(t, err)
		defer db.Close()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		l, err := lock.NewWith(db, lock.Options{NoDDL: true})
		require.NoError(t, err)
		return l.LockContext(ctx, component, id, job, "run", time.Hour)
	}
	with := func(t *testing.T, synchronous bool) *cluster {
		c := theCluster(t)
		require.NoError(t, c.forget())
		for _, n := range c.networks {
			n.noCancel.Store(false)
		}
		replication, err := NewNetwork(address(c.primary))
		require.NoError(t, err)
		t.Cleanup(replication.Close)
		host, port, err := net.SplitHostPort(replication.Addr())
		require.NoError(t, err)
		require.NoError(t, c.addStandby(synchronous, fmt.Sprintf("primary_conninfo=host=%s port=%s user=postgres", host, port)))
		replication.down.Store(true)
		return c
	}
	t.Run("asynchronous: a lock that was granted is lost, and there are two holders", func(t *testing.T) {
		c := with(t, false)
		require.NoError(t, take(c, "a", time.Minute))
		require.NoError(t, c.failOver())
		require.NoError(t, take(c, "b", time.Minute))
	})
	t.Run("synchronous: nothing is granted that could be lost", func(t *testing.T) {
		c := with(t, true)
		c.networks[0].noCancel.Store(true)
		require.ErrorIs(t, take(c, "a", time.Second), lock.ErrOutcomeUnknown)
		require.NoError(t, c.failOver())
		require.NoError(t, take(c, "b", time.Minute))
		require.ErrorAs(t, take(c, "a", time.Minute), new(*lock.ErrUnauthorised))
	})
	t.Run("synchronous: a statement that is cancelled while it waits for the standby can be lost", func(t *testing.T) {
		c := with(t, true)
		require.ErrorIs(t, take(c, "a", time.Second), lock.ErrOutcomeUnknown)
		// PostgreSQL then takes it for committed, and who repeats the call is told so.
		require.Eventually(t, func() bool { return take(c, "a", time.Second) == nil }, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, c.failOver())
		require.NoError(t, take(c, "b", time.Minute))
	})
}

func TestCockroachDB(t *testing.T) {
	url := os.Getenv("LOCK_TEST_COCKROACH_URL")
	if url == "" {
		t.Skip("LOCK_TEST_COCKROACH_URL is not set")
	}
	o := options(t)
	o.URL, o.Faults, o.Rounds = url, true, 1
	report := torture(t, o)
	report.Print(lines{t})
	require.Empty(t, report.Violations)
	require.Empty(t, report.Undecided)
}
