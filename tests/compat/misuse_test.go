package compat_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/cloudtrust/go-jobs/lock"
)

// TestLock_Lock_bun: bun's wrappers of *sql.DB and *sql.Tx use the arguments for their own
// placeholders, and leave $1 without one. Pass what they wrap.
func TestLock_Lock_bun(t *testing.T) {
	ctx := patient(t)
	db := bun.NewDB(newDatabase(t).open(t, "pgx"), pgdialect.New())
	require.ErrorContains(t, lock.New(db).Lock("shop", "a", "job", "1", time.Hour),
		"expected 8 arguments, got 0")

	lease, err := lock.New(db.DB).Acquire(ctx, lock.Job{ComponentName: "shop", JobName: "job",
		TTL: time.Hour})
	require.NoError(t, err)
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	defer tx.Rollback()
	require.ErrorContains(t, lease.Check(ctx, tx), "expected 2 arguments, got 0")
}

// TestLease_Check_noTransaction: without a transaction, the row would be locked only during the
// statement.
func TestLease_Check_noTransaction(t *testing.T) {
	ctx := patient(t)
	p := newDatabase(t)
	db := openSQLX(t, p)
	lease, err := lock.New(db).Acquire(ctx, lock.Job{ComponentName: "shop", JobName: "job",
		TTL: time.Hour})
	require.NoError(t, err)
	require.ErrorContains(t, lease.Check(ctx, db), "a *sqlx.DB is not a transaction")
	require.ErrorContains(t, lease.Check(ctx, db.DB), "a *sql.DB is not a transaction")
	require.ErrorContains(t, lease.Check(ctx, bun.NewDB(db.DB, pgdialect.New())),
		"a *bun.DB is not a transaction")

	gdb, err := gorm.Open(gormpostgres.Open(p.dsn()), &gorm.Config{PrepareStmt: true,
		Logger: logger.Discard})
	require.NoError(t, err)
	pool, err := gdb.DB()
	require.NoError(t, err)
	keep(t, pool)
	require.ErrorContains(t, lease.Check(ctx, gdb.Statement.ConnPool),
		"a *gorm.PreparedStmtDB is not a transaction")
}

// TestLease_Renew_poolOfOne: a renewal waits for the connection of the job's transaction, and the
// job for the renewal.
func TestLease_Renew_poolOfOne(t *testing.T) {
	ctx := patient(t)
	pool, err := pgxpool.New(ctx, newDatabase(t).dsn("pool_max_conns=1"))
	require.NoError(t, err)
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	job := lock.Job{ComponentName: "shop", JobName: "job", TTL: time.Hour}
	lease, err := lock.New(db).Acquire(ctx, job)
	require.NoError(t, err)
	_, err = pool.Exec(ctx, "SELECT 1") // pgx's own, beside the lease
	require.NoError(t, err)

	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	renewed := make(chan error)
	go func() { renewed <- lease.Renew(ctx) }()
	_, err = tx.ExecContext(ctx, "SELECT 1")
	require.NoError(t, err)
	require.NoError(t, lease.Check(ctx, tx))
	select {
	case err := <-renewed:
		t.Fatalf("renewed without a connection: %v", err)
	default:
	}
	require.NoError(t, tx.Commit())
	require.NoError(t, <-renewed)
	require.NoError(t, lease.Release(ctx))
}
