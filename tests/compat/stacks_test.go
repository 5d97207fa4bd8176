package compat_test

import (
	"context"
	"database/sql"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/cloudtrust/go-jobs/lock"
)

// A stack is what a service has between itself and its database.
type stack struct {
	name string
	open func(t *testing.T, p place) service
}

// A service is a stack with a database.
type service struct {
	storage  lock.Storage // what it hands to lock.New
	transact transact
}

// transact runs f in a transaction of the stack, and commits unless f fails. f gets the stack's
// argument for Lease.Check, and writes a result of the job through the stack.
type transact func(ctx context.Context, f func(tx lock.Transaction,
	write func(run string) error) error) error

// result is a row of the table results, which the jobs write.
type result struct {
	Run string `db:"run"`
}

const insert = `INSERT INTO results (run) VALUES ($1)`

var stacks = []stack{
	{"database/sql, pgx", func(t *testing.T, p place) service { return plain(p.open(t, "pgx")) }},
	{"database/sql, lib_pq", func(t *testing.T, p place) service {
		return plain(p.open(t,
			"postgres"))
	}},
	{"GORM", func(t *testing.T, p place) service { return openGORM(t, p, false) }},
	{"GORM, PrepareStmt", func(t *testing.T, p place) service { return openGORM(t, p, true) }},
	{"sqlx, its DB", func(t *testing.T, p place) service {
		db := openSQLX(t, p)
		return service{db.DB, transactSQLX(db)}
	}},
	{"sqlx, itself", func(t *testing.T, p place) service {
		db := openSQLX(t, p)
		return service{db, transactSQLX(db)}
	}},
	{"bun", openBun},
	{"ent", openEnt},
	{"pgx pool", func(t *testing.T, p place) service { return openPool(t, p, "") }},
	{"pgx pool of one connection", func(t *testing.T, p place) service {
		return openPool(t, p,
			"pool_max_conns=1")
	}},
}

func plain(db *sql.DB) service {
	return service{db, func(ctx context.Context, f func(lock.Transaction,
		func(string) error) error) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		err = f(tx, func(run string) error {
			_, err := tx.ExecContext(ctx, insert, run)
			return err
		})
		if err != nil {
			return err
		}
		return tx.Commit()
	}}
}

func openGORM(t *testing.T, p place, prepare bool) service {
	gdb, err := gorm.Open(gormpostgres.Open(p.dsn()), &gorm.Config{PrepareStmt: prepare,
		Logger: logger.Discard})
	require.NoError(t, err)
	db, err := gdb.DB()
	require.NoError(t, err)
	return service{keep(t, db), func(ctx context.Context, f func(lock.Transaction,
		func(string) error) error) error {
		return gdb.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			return f(tx.Statement.ConnPool, func(run string) error { return tx.Create(&result{run}).Error })
		})
	}}
}

func openSQLX(t *testing.T, p place) *sqlx.DB {
	db, err := sqlx.Connect("pgx", p.dsn())
	require.NoError(t, err)
	keep(t, db.DB)
	return db
}

func transactSQLX(db *sqlx.DB) transact {
	return func(ctx context.Context, f func(lock.Transaction, func(string) error) error) error {
		tx, err := db.BeginTxx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		err = f(tx, func(run string) error {
			_, err := tx.NamedExecContext(ctx, `INSERT INTO results (run) VALUES (:run)`, result{run})
			return err
		})
		if err != nil {
			return err
		}
		return tx.Commit()
	}
}

func openBun(t *testing.T, p place) service {
	db := bun.NewDB(p.open(t, "pgx"), pgdialect.New())
	return service{db.DB, func(ctx context.Context, f func(lock.Transaction,
		func(string) error) error) error {
		return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			return f(tx.Tx, func(run string) error {
				_, err := tx.NewInsert().Model(&result{run}).Exec(ctx)
				return err
			})
		})
	}}
}

// openEnt uses ent's driver, as generated clients do.
func openEnt(t *testing.T, p place) service {
	drv, err := entsql.Open("pgx", p.dsn())
	require.NoError(t, err)
	return service{keep(t, drv.DB()), func(ctx context.Context,
		f func(lock.Transaction, func(string) error) error) error {
		tx, err := drv.Tx(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		err = f(tx.(*entsql.Tx).ExecQuerier.(*sql.Tx), func(run string) error {
			insert := entsql.Dialect(dialect.Postgres).Insert("results")
			query, args := insert.Columns("run").Values(run).Query()
			return tx.Exec(ctx, query, args, nil)
		})
		if err != nil {
			return err
		}
		return tx.Commit()
	}}
}

// openPool writes with pgx itself, on the connection of the transaction for Check.
func openPool(t *testing.T, p place, params ...string) service {
	pool, err := pgxpool.New(context.Background(), p.dsn(params...))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { db.Close() })
	return service{db, func(ctx context.Context, f func(lock.Transaction,
		func(string) error) error) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		err = f(tx, func(run string) error {
			return conn.Raw(func(c any) error {
				_, err := c.(*stdlib.Conn).Conn().Exec(ctx, insert, run)
				return err
			})
		})
		if err != nil {
			return err
		}
		return tx.Commit()
	}}
}
