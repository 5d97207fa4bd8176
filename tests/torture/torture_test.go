//go:build linux

package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/crdbtest"
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

// The tests share a server, which is not always the same process.
var (
	started atomic.Pointer[cluster]
	shared  = sync.OnceValues(func() (*cluster, error) {
		c, err := startCluster(0, 3)
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

// lines writes to the log of a test.
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
	return Options{Dir: t.TempDir(), Exe: exe, Processes: 3, Goroutines: 6, Jobs: 12, Lose: 30,
		TTL: 150 * time.Millisecond, Pause: 100 * time.Millisecond, Seed: seed, Out: lines{t}}
}

func torture(t testing.TB, o Options) Report {
	report, err := Run(context.Background(), o)
	require.NoError(t, err)
	report.Print(lines{t})
	return report
}

func innocent(t *testing.T, report Report, faults ...string) {
	require.Empty(t, report.Violations)
	require.Empty(t, report.Undecided)
	for _, fault := range faults {
		require.NotZero(t, report.Faults[fault], fault)
	}
	require.NotZero(t, report.Kinds["Lock ok"])
}

// TestLock_faults is the short form: the long one is go run ./tests/torture/cmd.
func TestLock_faults(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		o.in = theCluster(t)
		o.Round, o.Faults, o.Rounds, o.FailOver = 1500, 10, 2, 2 // the second round has a failover
		report := torture(t, o)
		innocent(t, report, "failover to the synchronous standby")
		require.NotZero(t, report.Kinds["Write ok"])
	})
	for nodes, name := range map[int]string{1: "CockroachDB", 3: "CockroachDB, three nodes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Round, o.Faults, o.Rounds = 150, 4, 1
			c, err := startCluster(nodes, o.Processes)
			if crdbtest.Dispensable(err) {
				t.Skip(err)
			}
			require.NoError(t, err)
			defer c.Close()
			if nodes > 1 {
				cutOff(t, c, nodes-1)
			}
			o.in = c
			innocent(t, torture(t, o))
		})
	}
}

// cutOff tests that a node that is cut off writes nothing, and the others do; rejoin writes through
// each.
func cutOff(t *testing.T, c *cluster, node int) {
	for _, vanish := range []bool{false, true} {
		c.cutOff(node, vanish)
		require.Error(t, c.write(node, time.Second))
		require.Eventually(t, func() bool { return c.write(0, time.Minute) == nil },
			5*time.Minute, 20*time.Millisecond)
		require.NoError(t, c.rejoin())
	}
}

// TestCheck_guilty gives the checker clients with a bug each, without faults but for the replies
// without which one doesn't show.
func TestCheck_guilty(t *testing.T) {
	for name, lose := range map[string]int{"old client": 0, "non-atomic takeover": 0,
		"client clock": 0, "unlock without owner check": 0, "renew after loss": 0, "tick twice": 0,
		"tick given back as run": 0, "renewal not in doubt": 20} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.in = theCluster(t)
			o.Variant, o.Lose, o.Jobs, o.StopEarly, o.Round = name, lose, 3, true, 100
			o.Processes, o.Goroutines = 2, 9
			o.TTL = 20 * time.Millisecond
			o.Operations = 100_000 // after which it has had its chance
			report := torture(t, o)
			require.NotEmpty(t, report.Violations)
			t.Logf("guilty after %d operations, in %v", report.Guilty, report.Took.Round(time.Second/10))
			if first := report.Violations[0]; first.History != nil {
				pictures, err := os.ReadDir(o.Dir)
				require.NoError(t, err)
				require.NotEmpty(t, pictures)
			}
		})
	}
}

// TestLock_failover shows what a failover can lose, and what it can't. When the lock is acquired,
// nothing reaches the standby any more, as if it were behind.
func TestLock_failover(t *testing.T) {
	take := func(t *testing.T, c *cluster, id string, timeout time.Duration) error {
		db, err := open("pgx", c.dsn(0), nil, 0)
		require.NoError(t, err)
		defer db.Close()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		l, err := lock.NewWith(db, lock.Options{NoDDL: true})
		require.NoError(t, err)
		return l.LockContext(ctx, component, id, t.Name(), "run", time.Hour)
	}
	with := func(t *testing.T, synchronous bool) *cluster {
		c := theCluster(t)
		for _, n := range c.networks {
			n.noCancel.Store(false)
		}
		replication, err := NewNetwork(address(c.primary))
		require.NoError(t, err)
		t.Cleanup(replication.Close)
		host, port, err := net.SplitHostPort(replication.Addr())
		require.NoError(t, err)
		require.NoError(t,
			c.addStandby(synchronous, fmt.Sprintf("primary_conninfo=host=%s port=%s user=postgres", host,
				port)))
		replication.down.Store(true)
		return c
	}
	t.Run("asynchronous: a lock that was granted is lost, and there are two holders",
		func(t *testing.T) {
			c := with(t, false)
			require.NoError(t, take(t, c, "a", time.Minute))
			require.NoError(t, c.failOver())
			require.NoError(t, take(t, c, "b", time.Minute))
		})
	t.Run("synchronous: nothing is granted that could be lost", func(t *testing.T) {
		c := with(t, true)
		c.networks[0].noCancel.Store(true)
		require.ErrorIs(t, take(t, c, "a", time.Second), lock.ErrOutcomeUnknown)
		require.NoError(t, c.failOver())
		require.NoError(t, take(t, c, "b", time.Minute))
		require.ErrorAs(t, take(t, c, "a", time.Minute), new(*lock.ErrUnauthorised))
	})
	t.Run("synchronous: a statement that is cancelled while it waits for the standby can be lost",
		func(t *testing.T) {
			c := with(t, true)
			require.ErrorIs(t, take(t, c, "a", time.Second), lock.ErrOutcomeUnknown)
			// PostgreSQL then treats it as committed, and a repeated call gets that answer.
			require.Eventually(t, func() bool { return take(t, c, "a", time.Second) == nil }, time.Minute,
				10*time.Millisecond)
			require.NoError(t, c.failOver())
			require.NoError(t, take(t, c, "b", time.Minute))
		})
}
