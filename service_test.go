package lock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
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
	job := lock.Job{ComponentName: "shop", JobName: "payout", MaxDuration: time.Minute}
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
		return fmt.Sprintf("skipped: %s has been at it for %v", held.Holder().ComponentID, held.Holder().Age)
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

// newMock returns a Lock on a database that answers what the test says, after its New.
func newMock(t *testing.T) (*lock.Lock, sqlmock.Sqlmock) {
	db, mock, err := sqlmock.New()
	require.NoError(t, err)
	mock.ExpectExec("CREATE TABLE IF NOT EXISTS locks").WithArgs([]driver.Value{}...).WillReturnResult(sqlmock.NewResult(0, 0))
	l := lock.New(db)
	require.NoError(t, mock.ExpectationsWereMet())
	t.Cleanup(func() { require.NoError(t, mock.ExpectationsWereMet()) })
	return l, mock
}

func TestACallIsOneStatementWithItsArgumentsInOrder(t *testing.T) {
	for name, answer := range map[string]struct {
		row  []driver.Value
		want error
	}{
		"granted":  {locktest.Granted(), nil},
		"held":     {locktest.HeldBy("b", "2", time.Now().Add(-time.Minute)), &lock.ErrUnauthorised{}},
		"disabled": {locktest.Disabled(), &lock.ErrDisabled{}},
	} {
		t.Run(name, func(t *testing.T) {
			l, mock := newMock(t)
			mock.ExpectQuery("").WithArgs("c", "a", "j", "1", "3600000001 microseconds").
				WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(answer.row...))
			require.IsType(t, answer.want, l.Lock("c", "a", "j", "1", time.Hour+1999*time.Nanosecond))
		})
	}
	t.Run("no longest duration", func(t *testing.T) {
		l, mock := newMock(t)
		mock.ExpectQuery("").WithArgs("c", "a", "j", "1", nil).
			WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.HeldBy("a", "1", time.Time{})...))
		require.NoError(t, l.Lock("c", "a", "j", "1", 0))
	})
	t.Run("Unlock", func(t *testing.T) {
		l, mock := newMock(t)
		mock.ExpectQuery("").WithArgs("c", "a", "j", "1").
			WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.Granted()...))
		require.NoError(t, l.Unlock("c", "a", "j", "1"))
		mock.ExpectQuery("").WithArgs("c", "a", "j", "1").
			WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.HeldBy("b", "2", time.Time{})...))
		require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock("c", "a", "j", "1"))
	})
	t.Run("Enable, Disable", func(t *testing.T) {
		l, mock := newMock(t)
		mock.ExpectExec("").WithArgs("c", "j", true).WillReturnResult(sqlmock.NewResult(0, 1))
		require.NoError(t, l.Enable("c", "j"))
		mock.ExpectExec("").WithArgs("c", "j", false).WillReturnResult(sqlmock.NewResult(0, 1))
		require.NoError(t, l.Disable("c", "j"))
	})
}

func TestTheTextIsTheSameEveryTime(t *testing.T) {
	var texts []string
	db, mock, err := sqlmock.New(sqlmock.QueryMatcherOption(sqlmock.QueryMatcherFunc(func(_, actual string) error {
		texts = append(texts, actual)
		return nil
	})))
	require.NoError(t, err)
	mock.ExpectExec("").WillReturnResult(sqlmock.NewResult(0, 0))
	l := lock.New(db)
	for range 4 {
		mock.ExpectQuery("").WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.Granted()...))
	}
	require.NoError(t, l.Lock("c", "a", "j", "1", time.Hour))
	require.NoError(t, l.Unlock("c", "a", "j", "1"))
	require.NoError(t, l.Lock("d", "b", "k", "2", 0))
	require.NoError(t, l.Unlock("d", "b", "k", "2"))
	require.Equal(t, texts[1], texts[3])
	require.Equal(t, texts[2], texts[4])
}

// TestCockroachDBIsToldWhatSuitsIt: the first answer tells that it is one, and from then on a
// refusal is one small read.
func TestCockroachDBIsToldWhatSuitsIt(t *testing.T) {
	l, mock := newMock(t)
	none := func() *sqlmock.Rows { return sqlmock.NewRows(locktest.Columns) }
	cockroach := func(row []driver.Value) *sqlmock.Rows {
		row[len(row)-1] = true
		return none().AddRow(row...)
	}
	held := func() *sqlmock.Rows { return cockroach(locktest.HeldBy("b", "2", time.Now())) }
	won := func() *sqlmock.Rows { return cockroach(locktest.Granted()) }
	read := "^" + regexp.QuoteMeta("SELECT NULL, ")

	mock.ExpectQuery("^WITH w AS").WillReturnRows(held())
	require.IsType(t, &lock.ErrUnauthorised{}, l.Lock("c", "a", "j", "1", time.Hour))
	// Refused: one read.
	mock.ExpectQuery(read).WithArgs("c", "j").WillReturnRows(held())
	require.IsType(t, &lock.ErrUnauthorised{}, l.Lock("c", "a", "j", "1", time.Hour))
	// Granted: a read, and the write that decides.
	mock.ExpectQuery(read).WithArgs("c", "j").WillReturnRows(none())
	mock.ExpectQuery("^INSERT INTO locks").WithArgs("c", "a", "j", "1", "3600000000 microseconds").WillReturnRows(won())
	require.NoError(t, l.Lock("c", "a", "j", "1", time.Hour))
	// Lost to another in between: the read tells whom.
	mock.ExpectQuery(read).WithArgs("c", "j").WillReturnRows(none())
	mock.ExpectQuery("^INSERT INTO locks").WillReturnRows(none())
	mock.ExpectQuery(read).WithArgs("c", "j").WillReturnRows(held())
	require.IsType(t, &lock.ErrUnauthorised{}, l.Lock("c", "a", "j", "1", time.Hour))
	// Unlocked: one write.
	mock.ExpectQuery("^UPDATE locks").WithArgs("c", "a", "j", "1").WillReturnRows(won())
	require.NoError(t, l.Unlock("c", "a", "j", "1"))
	mock.ExpectQuery("^UPDATE locks").WithArgs("c", "a", "j", "1").WillReturnRows(none())
	mock.ExpectQuery(read).WithArgs("c", "j").WillReturnRows(held())
	require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock("c", "a", "j", "1"))
}

func TestADriversErrorIsReported(t *testing.T) {
	boom := errors.New("boom")
	l, mock := newMock(t)
	calls := map[string]func() error{
		"Lock":    func() error { return l.Lock("c", "a", "j", "1", 0) },
		"Unlock":  func() error { return l.Unlock("c", "a", "j", "1") },
		"Enable":  func() error { return l.Enable("c", "j") },
		"Disable": func() error { return l.Disable("c", "j") },
	}
	for verb, call := range calls {
		if verb == "Lock" || verb == "Unlock" {
			mock.ExpectQuery("").WillReturnError(boom)
		} else {
			mock.ExpectExec("").WillReturnError(boom)
		}
		err := call()
		require.ErrorIs(t, err, boom)
		require.ErrorContains(t, err, "lock: "+verb+` job "j" of component "c": boom`)
		require.False(t, errors.As(err, new(*lock.ErrUnauthorised)))
		require.False(t, errors.As(err, new(*lock.ErrDisabled)))
	}
}

func TestNewInATransactionCreatesNothing(t *testing.T) {
	db, mock, err := sqlmock.New()
	require.NoError(t, err)
	mock.ExpectBegin()
	tx, err := db.Begin()
	require.NoError(t, err)
	l := lock.New(tx)
	mock.ExpectQuery("locks").WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.Granted()...))
	require.NoError(t, l.Lock("c", "a", "j", "1", 0))
	require.NoError(t, mock.ExpectationsWereMet())
}

// What follows are callers of the 2018 package as they are found in services.

// controller is a job controller that declares what it needs.
type controller struct {
	locker interface {
		Enable(string, string) error
		Disable(string, string) error
		Lock(string, string, string, string, time.Duration) error
		Unlock(string, string, string, string) error
	}
	timeout time.Duration // 0 for jobs without one
}

func (c controller) run(id string, work func() error) error {
	if err := c.locker.Lock(component, id, job, id+"-run", c.timeout); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	return c.locker.Unlock(component, id, job, id+"-run")
}

func TestAControllerWithoutATimeout(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		c := controller{locker: lock.New(tb.DB)}
		require.NoError(t, c.run("a", func() error {
			require.IsType(t, &lock.ErrUnauthorised{}, c.run("b", func() error { t.Error("two at once"); return nil }))
			return nil
		}))
		require.NoError(t, c.run("b", func() error { return nil }))
		// Its instance dies: however long ago, nobody takes over.
		tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: 100 * 365 * 24 * time.Hour})
		require.IsType(t, &lock.ErrUnauthorised{}, c.run("a", func() error { t.Error("two at once"); return nil }))
	})
	require.NoError(t, controller{locker: &lock.NoopLocker{}}.run("a", func() error { return nil }))
}

// noopStorage is what a service uses whose database is switched off.
type noopStorage struct{ row *sql.Row }

type noopResult struct{}

func (noopResult) LastInsertId() (int64, error) { return 0, nil }
func (noopResult) RowsAffected() (int64, error) { return 0, nil }

func (noopStorage) Exec(string, ...interface{}) (sql.Result, error) { return noopResult{}, nil }
func (s noopStorage) QueryRow(string, ...interface{}) *sql.Row      { return s.row }

func TestADatabaseThatIsNotThereIsAnErrorAndNoPanic(t *testing.T) {
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

func TestTheWaysInWhichCallersTestErrors(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := lock.New(tb.DB)
		kind := func(err error) string {
			switch err.(type) {
			case nil:
				return "none"
			case *lock.ErrUnauthorised:
				return "unauthorised"
			case *lock.ErrDisabled:
				return "disabled"
			default:
				return "other"
			}
		}
		require.Equal(t, "none", kind(l.Lock(component, "a", job, "1", 0)))
		require.Equal(t, "unauthorised", kind(l.Lock(component, "b", job, "2", 0)))
		require.Equal(t, "unauthorised", kind(l.Unlock(component, "b", job, "2")))
		require.Equal(t, "none", kind(l.Disable(component, job)))
		require.Equal(t, "disabled", kind(l.Lock(component, "b", job, "2", 0)))
		require.Equal(t, "other", kind(l.Lock(component, "b", job, "2", -1)))
		require.IsType(t, &lock.ErrDisabled{}, l.Lock(component, "a", job, "1", 0))
		var disabled *lock.ErrDisabled
		require.True(t, errors.As(l.Lock(component, "a", job, "1", 0), &disabled))
	})
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

func TestNoopLocker(t *testing.T) {
	var l lock.NoopLocker
	require.NoError(t, l.Disable("c", "j"))
	require.NoError(t, l.Lock("c", "a", "j", "1", -1))
	require.NoError(t, l.Lock("c", "b", "j", "2", 0))
	require.NoError(t, l.Unlock("c", "x", "j", "9"))
	require.NoError(t, l.Enable("c", "j"))
}
