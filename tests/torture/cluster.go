//go:build linux

package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/crdbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// settings are the settings of a server that loses nothing. There are few connections, so that
// they can be exhausted.
var settings = []string{"synchronous_commit=on", "fsync=on", "max_connections=80",
	"deadlock_timeout=200ms"}

// A cluster has the servers, and the clients' networks to them: a primary, at times with a
// standby, or the nodes of CockroachDB.
type cluster struct {
	primary, standby *pgtest.Server
	nodes            *crdbtest.Cluster
	networks         []*Network
	between          map[[2]int]*Network // from one node to another
}

// startCluster starts a PostgreSQL, or that many nodes of CockroachDB.
func startCluster(nodes, networks int) (c *cluster, err error) {
	c = &cluster{between: map[[2]int]*Network{}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if nodes > 0 {
		c.nodes, err = crdbtest.StartVia(nodes, func(from, to int, addr string) (string, error) {
			n, err := NewNetwork(addr)
			if err != nil {
				return "", err
			}
			c.between[[2]int{from, to}] = n
			return n.Addr(), nil
		})
	} else {
		c.primary, err = pgtest.Start(settings...)
	}
	if err != nil {
		return c, err
	}
	for i := range networks {
		n, err := NewNetwork(c.target(i))
		if err != nil {
			return c, err
		}
		c.networks = append(c.networks, n)
	}
	return c, c.createTables()
}

func (c *cluster) Close() {
	for _, n := range c.networks {
		n.Close()
	}
	for _, s := range []*pgtest.Server{c.primary, c.standby} {
		if s != nil {
			s.Close()
		}
	}
	if c.nodes != nil {
		c.nodes.Close()
	}
	for _, n := range c.between {
		n.Close()
	}
}

// cutOff cuts a node off from the others, in both directions; clients still reach it. Connections
// are refused, or what is sent vanishes.
func (c *cluster) cutOff(node int, vanish bool) {
	for ends, n := range c.between {
		if ends[0] == node || ends[1] == node {
			if vanish {
				n.up.Store(true)
				n.down.Store(true)
			} else {
				n.refuse.Store(true)
				n.Cut()
			}
		}
	}
}

// rejoin ends what cutOff began, and returns when a write through each node is committed.
func (c *cluster) rejoin() error {
	for _, n := range c.between {
		n.Heal()
	}
	for i := range c.nodes.Nodes {
		for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			err := c.write(i, time.Minute)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("node %d has not come back: %w", i, err)
			}
		}
	}
	return nil
}

// write commits a row that is no client's, through a node.
func (c *cluster) write(node int, timeout time.Duration) error {
	db, err := sql.Open("pgx", c.nodes.Nodes[node].DSN())
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err = db.ExecContext(ctx, "INSERT INTO writes (job) VALUES ('')")
	return err
}

// target returns the target of a network: clients are spread over the nodes.
func (c *cluster) target(network int) string {
	if c.nodes != nil {
		return c.nodes.Nodes[network%len(c.nodes.Nodes)].Addr
	}
	return address(c.primary)
}

func address(s *pgtest.Server) string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// direct returns the URLs of the servers, dsn the one of a client through a network.
func (c *cluster) direct() (urls []string) {
	if c.nodes == nil {
		return []string{c.primary.DSN("connect_timeout=2")}
	}
	for _, n := range c.nodes.Nodes {
		urls = append(urls, n.DSN("connect_timeout=2"))
	}
	return urls
}

func (c *cluster) dsn(network int) string {
	u, err := url.Parse(c.direct()[0])
	if err != nil {
		panic(err)
	}
	u.Host = c.networks[network].Addr()
	return u.String()
}

// admin runs f with direct connections to a server once it answers: it may be recovering from a
// fault.
func (c *cluster) admin(f func(db *sql.DB) error) error {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		for _, dsn := range c.direct() {
			db, err := sql.Open("pgx", dsn)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			err = db.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
			cancel()
			if err == nil || time.Now().After(deadline) {
				defer db.Close()
				return f(db)
			}
			db.Close()
		}
	}
}

func (c *cluster) createTables() error {
	return c.admin(func(db *sql.DB) error {
		lock.New(db)
		_, err := db.Exec("CREATE TABLE IF NOT EXISTS writes (id BIGSERIAL PRIMARY KEY, job TEXT, " +
			"token BIGINT, op BIGINT)")
		if err != nil || c.nodes == nil {
			return err
		}
		// Data with one replica would be away with its node.
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			var fewest int
			err := db.QueryRow("SELECT min(array_length(replicas, 1)) " +
				"FROM crdb_internal.ranges_no_leases").Scan(&fewest)
			if fewest == len(c.nodes.Nodes) {
				return nil
			}
			if time.Now().After(deadline) {
				return errors.Join(fmt.Errorf("a range has %d replicas", fewest), err)
			}
		}
	})
}

// written reads what fenced transactions have committed for the jobs of a round, in the order of
// the commits.
func (c *cluster) written(aJob string) (all []Written, err error) {
	order := "id"
	if c.nodes != nil {
		order = "crdb_internal_mvcc_timestamp" // its serials are in another order
	}
	err = c.admin(func(db *sql.DB) error {
		rows, err := db.Query("SELECT job, token, op FROM writes WHERE job LIKE $1 ORDER BY "+order,
			aJob[:strings.LastIndexByte(aJob, '/')+1]+"%")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var w Written
			if err := rows.Scan(&w.Job, &w.Token, &w.Op); err != nil {
				return err
			}
			all = append(all, w)
		}
		return rows.Err()
	})
	return all, err
}

// settle ends statements that clients have left behind in the database.
func (c *cluster) settle() error {
	if c.primary == nil {
		return nil
	}
	return c.admin(func(db *sql.DB) error {
		if _, err := db.Exec("ALTER DATABASE postgres SET default_transaction_isolation = 'read " +
			"committed'"); err != nil {
			return err
		}
		_, err := db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> " +
			"pg_backend_pid() AND backend_type = 'client backend'")
		return err
	})
}

// addStandby adds a standby to the primary. When it returns, a synchronous standby has everything
// that clients know to be committed.
func (c *cluster) addStandby(synchronous bool, more ...string) (err error) {
	if c.standby, err = c.primary.Standby(append(more, settings...)...); err != nil {
		return err
	}
	state := "async"
	return c.admin(func(db *sql.DB) error {
		if synchronous {
			state = "sync"
			if _, err := db.Exec("ALTER SYSTEM SET synchronous_standby_names = '*'"); err != nil {
				return err
			}
			if _, err := db.Exec("SELECT pg_reload_conf()"); err != nil {
				return err
			}
		}
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			var ready bool
			err := db.QueryRow("SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE state = "+
				"'streaming' AND sync_state = $1)", state).Scan(&ready)
			if ready {
				return nil
			}
			if time.Now().After(deadline) {
				return errors.Join(fmt.Errorf("the standby is not %s within two minutes", state), err)
			}
		}
	})
}

// failOver kills the primary and sends the clients to the standby.
func (c *cluster) failOver() error {
	if c.primary.Processes() != nil {
		c.primary.Kill()
	}
	if err := c.standby.Promote(); err != nil {
		return err
	}
	c.primary.Close()
	c.primary, c.standby = c.standby, nil
	for _, n := range c.networks {
		n.Target(address(c.primary))
	}
	return nil
}
