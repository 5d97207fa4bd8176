package lock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// nightly is a service that guards its job with a lock, and TestNightly its own unit test: the
// README shows both.
func nightly(db *sql.DB, work func()) error {
	l := lock.New(db)
	if err := l.Lock("shop", "instance-1", "backup", "run-1", time.Hour); err != nil {
		return err
	}
	defer l.Unlock("shop", "instance-1", "backup", "run-1")
	work()
	return nil
}

func payout(ctx context.Context, l *lock.Lock, db *sql.DB) error {
	job := lock.Job{ComponentName: "shop", JobName: "payout", TTL: time.Minute}
	return l.Run(ctx, job, func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "UPDATE invoices SET paid = TRUE"); err != nil {
			return err
		}
		// An instance that has lost the lock, and doesn't know yet, can't commit.
		if err := lock.LeaseFrom(ctx).Check(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

func TestPayout(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		_, err := tb.Exec("CREATE TABLE IF NOT EXISTS invoices (id INT PRIMARY KEY, paid BOOL)")
		require.NoError(t, err)
		t.Cleanup(func() { tb.Exec("DROP TABLE invoices") })
		_, err = tb.Exec("INSERT INTO invoices VALUES (1, FALSE)")
		require.NoError(t, err)
		require.NoError(t, payout(context.Background(), lock.New(tb.DB), tb.DB))
		var paid bool
		require.NoError(t, tb.QueryRow("SELECT paid FROM invoices").Scan(&paid))
		require.True(t, paid)
	})
}

func why(err error) string {
	var (
		held     *lock.ErrUnauthorised // another holds it
		disabled *lock.ErrDisabled     // somebody has called Disable("shop", "backup")
	)
	switch {
	case errors.As(err, &held):
		return fmt.Sprintf("skipped: %s has been at it for %v", held.Holder().ComponentID,
			held.Holder().Age)
	case errors.As(err, &disabled):
		return "skipped: it is switched off"
	case errors.Is(err, lock.ErrOutcomeUnknown):
		return "the connection broke: to ask again, with the same IDs, settles it"
	default:
		return err.Error()
	}
}

func TestWhy(t *testing.T) {
	tb := dbtest.NewTable(t, engines[0])
	l := lock.New(tb.DB)
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-7", time.Hour))
	require.Contains(t, why(nightly(tb.DB, nil)), "skipped: instance-2 has been at it for ")
	require.NoError(t, l.Disable("shop", "backup"))
	require.Equal(t, "skipped: it is switched off", why(nightly(tb.DB, nil)))
}

func TestNightly(t *testing.T) {
	db, mock, err := sqlmock.New()
	require.NoError(t, err)
	mock.ExpectExec("CREATE TABLE").WillReturnResult(sqlmock.NewResult(0, 0))
	mock.ExpectQuery("locks").WillReturnRows(sqlmock.NewRows(locktest.Columns).
		AddRow(locktest.HeldBy("instance-2", "run-7", time.Now())...))

	err = nightly(db, func() { t.Error("it works without the lock") })

	var refusal *lock.ErrUnauthorised
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "instance-2", refusal.Holder().ComponentID)
	require.NoError(t, mock.ExpectationsWereMet())
}

// newMock returns a Lock on a mock of a database, after its New.
func newMock(t *testing.T) (*lock.Lock, sqlmock.Sqlmock) {
	db, mock, err := sqlmock.New()
	require.NoError(t, err)
	mock.ExpectExec("CREATE TABLE IF NOT EXISTS locks").WithArgs([]driver.Value{}...).
		WillReturnResult(sqlmock.NewResult(0, 0))
	l := lock.New(db)
	require.NoError(t, mock.ExpectationsWereMet())
	t.Cleanup(func() { require.NoError(t, mock.ExpectationsWereMet()) })
	return l, mock
}

func TestLock_statements(t *testing.T) {
	row := func(columns []string, row []driver.Value) *sqlmock.Rows {
		rows := sqlmock.NewRows(columns)
		if row != nil {
			rows.AddRow(row...)
		}
		return rows
	}
	for name, answer := range map[string]struct {
		row  []driver.Value
		want error
	}{
		"granted":  {locktest.Granted(), nil},
		"held":     {locktest.HeldBy("b", "2", time.Now().Add(-time.Minute)), &lock.ErrUnauthorised{}},
		"mine":     {locktest.HeldBy("a", "1", time.Now().Add(-time.Minute)), nil},
		"disabled": {locktest.Disabled(), &lock.ErrDisabled{}},
	} {
		t.Run("Lock/"+name, func(t *testing.T) {
			l, mock := newMock(t)
			mock.ExpectQuery("").WithArgs("c", "a", "j", "1", "3600000001", nil, nil, nil).
				WillReturnRows(row(locktest.Columns, answer.row))
			require.IsType(t, answer.want, l.Lock("c", "a", "j", "1", time.Hour+1999*time.Nanosecond))
			mock.ExpectQuery("").WithArgs("c", "a", "j", "1", nil, nil, nil, nil).
				WillReturnRows(row(locktest.Columns, answer.row))
			require.IsType(t, answer.want, l.Lock("c", "a", "j", "1", 0))
		})
	}
	t.Run("Unlock", func(t *testing.T) {
		l, mock := newMock(t)
		mock.ExpectQuery("^UPDATE").WithArgs("c", "a", "j", "1", nil, nil, "1").
			WillReturnRows(row(locktest.UnlockColumns, locktest.Unlocked()))
		require.NoError(t, l.Unlock("c", "a", "j", "1"))
		mock.ExpectQuery("^UPDATE").WillReturnRows(row(locktest.UnlockColumns, nil))
		mock.ExpectQuery("^SELECT").WithArgs("c", "j").
			WillReturnRows(row(locktest.StatusColumns, locktest.Status("b", "2", time.Now())))
		require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock("c", "a", "j", "1"))
	})
	t.Run("Enable, Disable", func(t *testing.T) {
		l, mock := newMock(t)
		mock.ExpectExec("").WithArgs("c", "j", "true").WillReturnResult(sqlmock.NewResult(0, 1))
		require.NoError(t, l.Enable("c", "j"))
		mock.ExpectExec("").WithArgs("c", "j", "false").WillReturnResult(sqlmock.NewResult(0, 1))
		require.NoError(t, l.Disable("c", "j"))
	})
	t.Run("CockroachDB is known from its first answer", func(t *testing.T) {
		l, mock := newMock(t)
		cockroach := locktest.HeldBy("b", "2", time.Now())
		peeked := append(append([]driver.Value{}, cockroach[1:7]...), true)
		cockroach[8] = true
		peek := func(p []driver.Value) {
			mock.ExpectQuery("^SELECT").WithArgs("c", "j", "3600000000").
				WillReturnRows(row(locktest.Columns[1:8], p))
		}
		mock.ExpectQuery("^WITH").WillReturnRows(row(locktest.Columns, cockroach))
		peek(peeked)
		require.IsType(t, &lock.ErrUnauthorised{}, l.Lock("c", "a", "j", "1", time.Hour))
		peek(peeked)
		require.IsType(t, &lock.ErrUnauthorised{}, l.Lock("c", "a", "j", "1", time.Hour))
		free := append([]driver.Value{}, peeked...)
		free[6] = false
		peek(free)
		mock.ExpectQuery("^UPDATE locks").WithArgs("c", "a", "j", "1", "3600000000", nil, nil).
			WillReturnRows(sqlmock.NewRows([]string{"written"}).AddRow(time.Now().UnixMicro()))
		require.NoError(t, l.Lock("c", "a", "j", "1", time.Hour))
		// The last to have it, here, tries at once. It was lost to another.
		mock.ExpectQuery("^UPDATE locks").WillReturnRows(row([]string{"written"}, nil))
		peek(peeked)
		require.IsType(t, &lock.ErrUnauthorised{}, l.Lock("c", "a", "j", "1", time.Hour))
		mock.ExpectQuery("^SELECT").WillReturnRows(row(locktest.Columns[1:8], nil))
		mock.ExpectQuery("^INSERT INTO locks").WithArgs("c", "a", "j", "1").
			WillReturnRows(row([]string{"written"}, []driver.Value{time.Now()}))
		require.NoError(t, l.Lock("c", "a", "j", "1", time.Hour))
	})
}

func TestLock_unknownServer(t *testing.T) {
	l, mock := newMock(t)
	mock.ExpectQuery("^WITH").WillReturnError(notUnderstood{})
	mock.ExpectQuery("version").WillReturnError(io.ErrUnexpectedEOF)
	mock.ExpectQuery("^WITH").WillReturnRows(sqlmock.NewRows(locktest.Columns).
		AddRow(locktest.Granted()...))
	require.NoError(t, l.Lock("c", "a", "j", "1", time.Hour), "what can't be asked is asked again")
}

type notUnderstood struct{}

func (notUnderstood) Error() string    { return "unknown function" }
func (notUnderstood) SQLState() string { return "42883" }

// noopStorage is used by a service whose database is switched off.
type noopStorage struct{ row *sql.Row }

type noopResult struct{}

func (noopResult) LastInsertId() (int64, error) { return 0, nil }
func (noopResult) RowsAffected() (int64, error) { return 0, nil }

func (noopStorage) Exec(string, ...interface{}) (sql.Result, error) { return noopResult{}, nil }
func (s noopStorage) QueryRow(string, ...interface{}) *sql.Row      { return s.row }

func TestLock_withoutADatabase(t *testing.T) {
	var (
		noStorage lock.Storage
		noDB      *sql.DB
		noTx      *sql.Tx
		noLock    *lock.Lock
	)
	for name, l := range map[string]*lock.Lock{
		"nil Storage":         lock.New(noStorage),
		"nil *sql.DB":         lock.New(noDB),
		"nil *sql.Tx":         lock.New(noTx),
		"nil *sql.DB wrapped": lock.New(struct{ *sql.DB }{}),
		"zero Lock":           {},
		"nil *Lock":           noLock,
		"nil row":             lock.New(noopStorage{}),
		"zero row":            lock.New(noopStorage{&sql.Row{}}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{l.Lock("c", "a", "j", "1", 0), l.Unlock("c", "a", "j", "1")} {
				require.ErrorContains(t, err, "Storage")
				require.ErrorContains(t, err, `job "j" of component "c"`)
				require.False(t, errors.As(err, new(*lock.ErrUnauthorised)))
				require.False(t, errors.As(err, new(*lock.ErrDisabled)))
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			}
			enable, disable := l.Enable("c", "j"), l.Disable("c", "j")
			if _, noop := map[string]bool{"nil row": true, "zero row": true}[name]; noop {
				require.NoError(t, errors.Join(enable, disable), "nothing tells that it was not done")
			} else {
				require.ErrorContains(t, enable, "Storage")
				require.ErrorContains(t, disable, "Storage")
			}
		})
	}
}

func TestLocalLock(t *testing.T) {
	var zero lock.LocalLock
	for _, l := range []*lock.LocalLock{lock.NewLocalLock(), &zero} {
		require.NoError(t, l.Unlock())
		require.NoError(t, l.Lock())
		require.ErrorContains(t, l.Lock(), "already locked")
		require.NoError(t, l.Unlock())
		require.NoError(t, l.Unlock())
		require.NoError(t, l.Lock())
		require.NoError(t, l.Unlock())

		var (
			won         atomic.Int64
			challengers sync.WaitGroup
		)
		for range 32 {
			challengers.Go(func() {
				if l.Lock() == nil {
					won.Add(1)
				}
			})
		}
		challengers.Wait()
		require.EqualValues(t, 1, won.Load())
	}
}

func TestLease_nil(t *testing.T) {
	ctx := context.Background()
	for name, lease := range map[string]*lock.Lease{"nil": nil, "LeaseFrom": lock.LeaseFrom(ctx)} {
		for _, err := range []error{lease.Err(), lease.Renew(ctx), lease.Release(ctx),
			lease.GiveBack(ctx),
			lease.Check(ctx, nil), context.Cause(lease.Context())} {
			require.ErrorContains(t, err, "the lease is nil", name)
		}
		require.Zero(t, lease.Token())
		require.Zero(t, lease.Job())
		require.Nil(t, lease.TakenFrom())
	}
}

func TestJob_invalid(t *testing.T) {
	tick := time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)
	l := lock.NewMemory(lock.Options{})
	for says, j := range map[string]lock.Job{
		"Job.JobName is required": {ComponentName: "c"},
		"Job.TTL":                 {JobName: "j", TTL: -1},
		"microsecond":             {JobName: "j", TTL: 30},
		"Job.Margin, -1":          {JobName: "j", Margin: -1},
		"must be less":            {JobName: "j", Margin: time.Minute},
		"Job.Wait":                {JobName: "j", Wait: -1},
		"Job.Poll":                {JobName: "j", Poll: -1},
		"Job.TickAhead":           {JobName: "j", TickAhead: -1},
		"Job.Spacing":             {JobName: "j", Spacing: -1},
		"RetryFailed":             {JobName: "j", RetryFailed: true},
		"must be empty":           {JobName: "j", Tick: tick, JobID: "1"},
		"whole seconds":           {JobName: "j", Tick: tick.Add(time.Millisecond)},
		"years 1 to 9999":         {JobName: "j", Tick: tick.AddDate(9000, 0, 0)},
		"both be set":             {JobName: "j", Tick: tick, Spacing: time.Hour},
	} {
		_, err := l.Acquire(context.Background(), j)
		require.ErrorContains(t, err, says)
		require.NotErrorIs(t, err, lock.ErrRefused)
	}
}

func TestHolder(t *testing.T) {
	for id, want := range map[string]int{"": 1, "run-1": 1, "2026-03-29T02:00:00Z": 2026,
		"2026-03-29T02:00:00Z/X": 2026,
		"2026-13-29T02:00:00Z":   1, "2026-03-29": 1} {
		require.Equal(t, want, lock.Holder{JobID: id}.Started().Year(), id)
	}
	require.Contains(t, lock.Holder{ComponentID: "a", JobID: "1"}.String(),
		`component ID "a", job ID "1", lock time`)
}

func TestNoopLocker(t *testing.T) {
	var l lock.NoopLocker
	require.NoError(t, l.Disable("c", "j"))
	require.NoError(t, l.Lock("c", "a", "j", "1", -1))
	require.NoError(t, l.Lock("c", "b", "j", "2", 0))
	require.NoError(t, l.Unlock("c", "x", "j", "9"))
	require.NoError(t, l.Enable("c", "j"))
	ctx := context.Background()
	lease, err := l.Acquire(ctx, lock.Job{JobName: "j"})
	require.NoError(t, err)
	require.NoError(t, errors.Join(lease.Err(), lease.Renew(ctx), lease.Check(ctx, nil)))
	require.NoError(t, l.Run(ctx, lock.Job{JobName: "j"},
		func(ctx context.Context) error { return lock.LeaseFrom(ctx).Err() }))
	require.NoError(t, lease.Release(ctx))
	require.ErrorIs(t, lease.Err(), lock.ErrReleased)
}
