package lock

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Transaction is what [Lease.Check] needs of a transaction: *sql.Tx is one.
type Transaction = store.Transaction

// Check makes sure, within the transaction in which the job writes its results, that this lease
// holds the lock and goes on holding it until the transaction ends: it locks the row. The
// transaction of a job that has lost its lock can't commit then, even if the job doesn't know
// yet. tx must be a transaction of the same database. If the lease is lost, the error matches
// [ErrLost]; after any error the transaction must be rolled back.
//
// Until the transaction ends, the lease can't be renewed, nor another take over: call Check at
// its end, just before Commit. At the isolation levels REPEATABLE READ and SERIALIZABLE it may
// fail with the database's serialization error, like any statement; then repeat the transaction.
// A lease in memory is checked at this moment, and tx is not used.
func (le *Lease) Check(ctx context.Context, tx Transaction) error {
	if le == nil {
		return errNoLease
	}
	r := le.job.request("Check")
	if err := le.fences(tx); err != nil {
		return r.Wrap(err)
	}
	if err := le.Err(); errors.Is(err, ErrLost) || errors.Is(err, ErrReleased) {
		return r.Wrap(err)
	}
	if le.l == noop {
		return nil
	}
	for {
		before := le.term()
		rec, err := le.l.store.Fence(ctx, tx, r)
		if err != nil {
			return err
		}
		// The row stays as it is now. A renewal may have moved its lock time before.
		now := le.term()
		switch {
		case now.Holds(r, rec):
			return nil
		case now == before:
			return r.Wrap(lostTo(r, rec))
		}
	}
}

func (le *Lease) term() store.Term {
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.state.Term()
}

// fences finds what keeps a transaction from fencing anything.
func (le *Lease) fences(tx Transaction) error {
	if _, table := le.l.store.(*store.Table); !table {
		return nil
	}
	if store.Absent(tx) {
		return errors.New("the transaction is nil")
	}
	// What can begin a transaction is none, unless it can end one, too. The signatures of those
	// that wrap
	// *sql.DB differ.
	if _, begins := reflect.TypeOf(tx).MethodByName("BeginTx"); begins && !store.IsTransaction(tx) {
		return fmt.Errorf("a %T is not a transaction: pass a *sql.Tx", tx)
	}
	return nil
}
