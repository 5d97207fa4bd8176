//go:build linux

package torture

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// settings are those of a server that loses nothing. There are few connections, so that they can be exhausted.
var settings = []string{"synchronous_commit=on", "fsync=on", "max_connections=80", "deadlock_timeout=200ms"}

// A cluster is a primary, at times with a standby, and the networks of the client processes to the primary.
type cluster struct {
	url              string // of a server of somebody else's; there is no primary then
	primary, standby *pgtest.Server
	networks         []*Network
}

// startCluster starts a server, unless one is named.
func startCluster(external string, networks int) (c *cluster, err error) {
	c = &cluster{url: external}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	var target string
	if external == "" {
		if c.primary, err = pgtest.Start(settings...); err != nil {
			return c, err
		}
		target = address(c.primary)
	} else {
		u, err := url.Parse(external)
		if err != nil {
			return c, err
		}
		target = u.Host
	}
	for range networks {
		n, err := NewNetwork(target)
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
}

func address(s *pgtest.Server) string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// direct is the URL of the primary, dsn the one of a client through a network.
func (c *cluster) direct() string {
	if c.primary == nil {
		return c.url
	}
	return c.primary.DSN("connect_timeout=2")
}

func (c *cluster) dsn(network int) string {
	u, err := url.Parse(c.direct())
	if err != nil {
		panic(err) // it was parsed before
	}
	u.Host = c.networks[network].Addr()
	return u.String()
}

// admin runs f with direct connections to the primary, once it takes them: it may be recovering from a fault.
func (c *cluster) admin(f func(db *sql.DB) error) error {
	db, err := sql.Open("pgx", c.direct())
	if err != nil {
		return err
	}
	defer db.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := db.Ping(); err == nil || time.Now().After(deadline) {
			return f(db)
		}
	}
}

func (c *cluster) createTables() error {
	return c.admin(func(db *sql.DB) error {
		lock.New(db)
		_, err := db.Exec("CREATE TABLE IF NOT EXISTS writes (id BIGSERIAL PRIMARY KEY, job TEXT, token BIGINT, op BIGINT)")
		return err
	})
}

// written reads what fenced transactions of a round have committed.
func (c *cluster) written(jobs []Job) (all []Written, err error) {
	names := map[string]bool{}
	for _, j := range jobs {
		names[j.Name] = true
	}
	err = c.admin(func(db *sql.DB) error {
		// CockroachDB's serials are not in the order of the commits.
		var version string
		if err := db.QueryRow("SELECT version()").Scan(&version); err != nil {
			return err
		}
		order := "id"
		if strings.HasPrefix(version, "CockroachDB") {
			order = "crdb_internal_mvcc_timestamp"
		}
		rows, err := db.Query("SELECT job, token, op FROM writes ORDER BY " + order)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var w Written
			if err := rows.Scan(&w.Job, &w.Token, &w.Op); err != nil {
				return err
			}
			if names[w.Job] {
				all = append(all, w)
			}
		}
		return rows.Err()
	})
	return all, err
}

// forget deletes what another round has left: its jobs may have the same names.
func (c *cluster) forget() error {
	return c.admin(func(db *sql.DB) error {
		_, err := db.Exec("TRUNCATE locks, writes")
		return err
	})
}

// addStandby gives the primary a standby. From its return on a synchronous one has what clients have been told is committed.
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
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			var ready bool
			err := db.QueryRow("SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = $1)", state).Scan(&ready)
			if ready {
				return nil
			}
			if time.Now().After(deadline) {
				return errors.Join(fmt.Errorf("the standby is not %s within 20 s", state), err)
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
