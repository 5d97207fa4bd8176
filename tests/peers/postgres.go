package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/cloudtrust/go-jobs/lock/internal/crdbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

func startPostgres() (*server, error) {
	p, err := pgtest.Start("max_connections=400", "shared_preload_libraries=pg_stat_statements")
	if err != nil {
		return nil, err
	}
	s := &server{addr: p.DSN(), stop: p.Close}
	err = s.sql("CREATE EXTENSION pg_stat_statements",
		"SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1)",
		"SELECT sum(calls)::float8 FROM pg_stat_statements")
	return s, err
}

func startCockroach() (*server, error) {
	c, err := crdbtest.Start(1)
	if err != nil {
		return nil, err
	}
	s := &server{addr: c.Nodes[0].DSN(), stop: c.Close}
	err = s.sql("SELECT 1", "SELECT 'CockroachDB ' || split_part(version(), ' ', 3)",
		"SELECT value FROM crdb_internal.node_metrics WHERE name = 'sql.query.count'")
	return s, err
}

// sql fills in the version of the server, and how it counts requests.
func (s *server) sql(prepare, version, requests string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.addr)
	if err == nil {
		_, err = conn.Exec(ctx, prepare)
	}
	if err == nil {
		err = conn.QueryRow(ctx, version).Scan(&s.version)
	}
	if err != nil {
		s.stop()
		return err
	}
	stop := s.stop
	s.stop = func() { conn.Close(ctx); stop() }
	s.requests = func() (n float64, err error) {
		err = conn.QueryRow(ctx, requests).Scan(&n)
		return n, err
	}
	return nil
}

func openAdvisory(ctx context.Context, s *server) (*instance, error) {
	conn, err := pgx.Connect(ctx, s.addr)
	if err != nil {
		return nil, err
	}
	exec := func(ctx context.Context, statement string) error {
		_, err := conn.Exec(ctx, statement)
		return err
	}
	return &instance{
		try: func(ctx context.Context) error {
			var granted bool
			err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(1)").Scan(&granted)
			if err == nil && !granted {
				return errRefused
			}
			return err
		},
		acquire: func(ctx context.Context) error { return exec(ctx, "SELECT pg_advisory_lock(1)") },
		release: func(ctx context.Context) error { return exec(ctx, "SELECT pg_advisory_unlock(1)") },
		close:   func() { conn.Close(context.Background()) },
	}, nil
}

// openRow locks a row for as long as a transaction is open. It skips the row to try.
func openRow(ctx context.Context, s *server) (*instance, error) {
	conn, err := pgx.Connect(ctx, s.addr)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS jobs (name TEXT PRIMARY KEY);
INSERT INTO jobs VALUES ('job') ON CONFLICT DO NOTHING`)
	var tx pgx.Tx
	lock := func(ctx context.Context, how string) (err error) {
		if tx, err = conn.Begin(ctx); err != nil {
			return err
		}
		var name string
		return tx.QueryRow(ctx, "SELECT name FROM jobs WHERE name = 'job' FOR UPDATE "+how).Scan(&name)
	}
	return &instance{
		try: func(ctx context.Context) error {
			err := lock(ctx, "SKIP LOCKED")
			if errors.Is(err, pgx.ErrNoRows) {
				return errors.Join(errRefused, tx.Rollback(ctx))
			}
			return err
		},
		acquire: func(ctx context.Context) error { return lock(ctx, "") },
		release: func(ctx context.Context) error { return tx.Commit(ctx) },
		close:   func() { conn.Close(context.Background()) },
	}, err
}
