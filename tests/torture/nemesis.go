//go:build linux

package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// A fault is something that goes wrong for a while.
type fault struct {
	name   string
	where  place
	inject func(ctx context.Context, n *nemesis) error
}

// A place is where faults happen. There is one fault of the servers at a time.
type place int

const (
	clients  place = iota // and the network
	servers               // of any kind
	postgres              // PostgreSQL
	// PostgreSQL without a standby: a primary that comes back has what its standby may not have
	// confirmed
	alone
	cockroach // CockroachDB
)

// has reports whether the cluster can have faults of the kind.
func (c *cluster) has(where place) bool {
	switch where {
	case postgres:
		return c.nodes == nil
	case alone:
		return c.nodes == nil && c.standby == nil
	case cockroach:
		return c.nodes != nil
	}
	return true
}

var faults = []fault{
	{"server killed and restarted", alone, func(ctx context.Context, n *nemesis) error {
		n.c.primary.Kill()
		n.wait(ctx, 300*time.Millisecond)
		return n.c.primary.Run()
	}},
	{"server process killed", alone, func(ctx context.Context, n *nemesis) error {
		// One of the processes that serve connections: the server ends all others and recovers.
		pids := n.c.primary.Processes()
		if len(pids) > 1 {
			syscall.Kill(pids[1+n.r.IntN(len(pids)-1)], syscall.SIGKILL)
		}
		n.wait(ctx, 500*time.Millisecond)
		return nil
	}},
	{"server stopped and continued", postgres, func(ctx context.Context, n *nemesis) error {
		n.c.primary.Signal(syscall.SIGSTOP)
		n.wait(ctx, time.Second)
		n.c.primary.Signal(syscall.SIGCONT)
		return nil
	}},
	{"connections terminated by the server", alone, func(_ context.Context, n *nemesis) error {
		return n.c.admin(func(db *sql.DB) error {
			_, err := db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> " +
				"pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.5")
			return err
		})
	}},
	{"connections reset", clients, func(_ context.Context, n *nemesis) error {
		n.network().Cut()
		return nil
	}},
	{"connections cut mid-statement", clients, func(ctx context.Context, n *nemesis) error {
		n.network().amid.Store(1 + n.r.Int64N(20_000))
		n.wait(ctx, 200*time.Millisecond)
		return nil
	}},
	{"latency", clients, func(ctx context.Context, n *nemesis) error {
		net := n.network()
		net.latency.Store(int64(upTo(n.r, 100*time.Millisecond)))
		n.wait(ctx, time.Second)
		net.Heal()
		return nil
	}},
	{"requests vanish", clients, func(ctx context.Context, n *nemesis) error {
		net := n.network()
		net.up.Store(true)
		n.wait(ctx, 3*time.Second)
		net.Heal()
		return nil
	}},
	{"replies vanish", clients, func(ctx context.Context, n *nemesis) error {
		net := n.network()
		net.down.Store(true)
		n.wait(ctx, 3*time.Second)
		net.Heal()
		return nil
	}},
	{"half-open connections", clients, func(ctx context.Context, n *nemesis) error {
		net := n.network()
		net.HalfClose(n.r.IntN(2) == 0)
		n.wait(ctx, 2*time.Second)
		net.Heal()
		return nil
	}},
	{"client stopped and continued", clients, func(ctx context.Context, n *nemesis) error {
		return n.signal(ctx, 2*time.Second, syscall.SIGSTOP, syscall.SIGCONT)
	}},
	{"client killed", clients, func(ctx context.Context, n *nemesis) error {
		return n.signal(ctx, 0, syscall.SIGKILL)
	}},
	{"table locked by a transaction", postgres, func(ctx context.Context, n *nemesis) error {
		return n.transaction(ctx, "LOCK TABLE locks IN ACCESS EXCLUSIVE MODE")
	}},
	{"rows locked by a transaction", servers, func(ctx context.Context, n *nemesis) error {
		return n.transaction(ctx,
			"SELECT count(*) FROM (SELECT 1 FROM locks WHERE random() < 0.5 ORDER BY job_name FOR "+
				"UPDATE) AS chosen")
	}},
	{"connections exhausted", postgres, func(ctx context.Context, n *nemesis) error {
		return n.c.admin(func(db *sql.DB) error {
			// All that are left, and what others give up meanwhile.
			held := make([]*sql.Conn, 0, 100)
			for range 100 {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				conn, err := db.Conn(ctx)
				cancel()
				if err != nil {
					break
				}
				held = append(held, conn)
			}
			n.wait(ctx, time.Second)
			for _, conn := range held {
				conn.Close()
			}
			return nil
		})
	}},
	{"default isolation changed", postgres, func(ctx context.Context, n *nemesis) error {
		// For connections that begin after it.
		return n.c.admin(func(db *sql.DB) error {
			level := []string{"serializable", "repeatable read", "read committed"}[n.r.IntN(3)]
			if _, err := db.Exec("ALTER DATABASE postgres SET default_transaction_isolation = '" + level +
				"'"); err != nil {
				return err
			}
			n.network().Cut()
			return nil
		})
	}},
	{"node killed and restarted", cockroach, func(ctx context.Context, n *nemesis) error {
		node := n.c.nodes.Nodes[n.r.IntN(len(n.c.nodes.Nodes))]
		node.Kill()
		n.wait(ctx, 3*time.Second)
		return node.Run()
	}},
	{"node stopped and continued", cockroach, func(ctx context.Context, n *nemesis) error {
		node := n.c.nodes.Nodes[n.r.IntN(len(n.c.nodes.Nodes))]
		node.Signal(syscall.SIGSTOP)
		// After nine seconds the others take over its ranges.
		n.wait(ctx, []time.Duration{time.Second, 3 * time.Second, 12 * time.Second}[n.r.IntN(3)])
		node.Signal(syscall.SIGCONT)
		return nil
	}},
	{"node cut off from the others", cockroach, func(ctx context.Context, n *nemesis) error {
		if len(n.c.nodes.Nodes) == 1 {
			return errNotHere
		}
		n.c.cutOff(n.r.IntN(len(n.c.nodes.Nodes)), n.r.IntN(2) == 0)
		n.wait(ctx, []time.Duration{time.Second, 3 * time.Second, 15 * time.Second}[n.r.IntN(3)])
		return n.c.rejoin()
	}},
	{"lease of the range moved", cockroach, func(ctx context.Context, n *nemesis) error {
		if len(n.c.nodes.Nodes) == 1 {
			return errNotHere
		}
		return n.c.admin(func(db *sql.DB) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err := db.ExecContext(ctx, fmt.Sprintf("ALTER TABLE locks EXPERIMENTAL_RELOCATE LEASE "+
				"SELECT %d, component_name, job_name FROM locks LIMIT 1", 1+n.r.IntN(len(n.c.nodes.Nodes))))
			return err
		})
	}},
	{"sessions cancelled", cockroach, func(ctx context.Context, n *nemesis) error {
		return n.c.admin(func(db *sql.DB) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err := db.ExecContext(ctx,
				"CANCEL SESSIONS IF EXISTS SELECT session_id FROM [SHOW CLUSTER SESSIONS] "+
					"WHERE random() < 0.3 AND active_queries NOT LIKE '%SHOW CLUSTER SESSIONS%'")
			return err
		})
	}},
}

// errNotHere is the error of a fault that is not possible at the moment.
var errNotHere = errors.New("not here")

// A nemesis injects faults until the context ends.
type nemesis struct {
	c      *cluster
	fleet  *fleet
	r      *rand.Rand
	pause  time.Duration // the mean time between two faults
	report func(format string, args ...any)
	counts *counts
}

// counts is how often each fault was injected.
type counts struct {
	fleet *fleet // to notify

	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[name]++
	c.fleet.advance()
}

func (c *counts) sum() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.of {
		n += k
	}
	return n
}

func (n *nemesis) network() *Network { return n.c.networks[n.r.IntN(len(n.c.networks))] }

// wait waits for a random time up to most, or until the context ends.
func (n *nemesis) wait(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(upTo(n.r, most)):
	case <-ctx.Done():
	}
}

// signal sends signals to a client process, with a random time between them.
func (n *nemesis) signal(ctx context.Context, most time.Duration, signals ...syscall.Signal) error {
	p := n.fleet.process(n.r)
	if p == nil {
		return errNotHere
	}
	for i, s := range signals {
		if i > 0 {
			n.wait(ctx, most)
		}
		p.Signal(s)
	}
	return nil
}

// transaction locks what clients want, for a while.
func (n *nemesis) transaction(ctx context.Context, statement string) error {
	return n.c.admin(func(db *sql.DB) error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		// Not for ever: it waits for the clients' transactions, as they do for it.
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := tx.ExecContext(short, statement); err != nil {
			return errors.Join(err, short.Err())
		}
		n.wait(ctx, time.Second)
		return nil
	})
}

// run injects one fault after another until the context ends, of all kinds in turn: those of the
// servers, or all others. If the primary is to be replaced, that happens in the middle or at the
// end of the round.
func (n *nemesis) run(ctx context.Context, round int, server bool) {
	order := n.r.Perm(len(faults))
	for i := 0; ; i++ {
		over := ctx.Err() != nil
		if server && n.c.standby != nil && (over || n.fleet.operations.Load() > int64(round/2)) {
			if err := n.c.failOver(); err != nil {
				n.report("failover: %v", err)
				return
			}
			n.counts.add("failover to the synchronous standby")
		}
		if over {
			return
		}
		f := faults[order[i%len(order)]]
		if server == (f.where == clients) || !n.c.has(f.where) {
			continue
		}
		err := f.inject(ctx, n)
		switch {
		case err == nil:
			n.counts.add(f.name)
		case !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) &&
			!errors.Is(err, errNotHere):
			n.report("%s: %v", f.name, err)
		}
		n.wait(ctx, 2*n.pause)
	}
}
