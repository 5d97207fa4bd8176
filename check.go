package lock

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Transaction is the part of a transaction that [Lease.Check] needs. *sql.Tx is one.
type Transaction = store.Transaction

// Check makes sure that this lease holds the lock until the transaction ends: it locks the row.
// Call it in the transaction in which the job writes its results, which must be one of the same
// database. If the job has lost its lock, even if it doesn't know yet, Check fails. If the lease
// is lost, the error matches [ErrLost]. After any error, roll the transaction back.
//
// Until the transaction ends, the lease can't be renewed and nobody can take the lock over, so
// call Check just before Commit. At the isolation levels REPEATABLE READ and SERIALIZABLE it may
// fail with the database's serialization error, like any statement; then repeat the transaction.
// In memory, Check compares at that moment and does not use tx.
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

// fences returns an error if tx can't fence anything.
func (le *Lease) fences(tx Transaction) error {
	if _, table := le.l.store.(*store.Table); !table {
		return nil
	}
	if store.Absent(tx) {
		return errors.New("the transaction is nil")
	}
	// What can begin a transaction is not one, unless it can end one, too. The signatures of
	// types that wrap *sql.DB differ.
	if _, begins := reflect.TypeOf(tx).MethodByName("BeginTx"); begins && !store.IsTransaction(tx) {
		return fmt.Errorf("a %T is not a transaction: pass a *sql.Tx", tx)
	}
	return nil
}
