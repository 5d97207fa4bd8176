// Package locktest helps to test services that use package lock.
//
// [New] returns a Lock in memory with a clock that the test sets, which is enough for most tests.
// A test that mocks PostgreSQL with go-sqlmock answers a call with the rows of this package:
//
//	mock.ExpectExec("CREATE TABLE").WillReturnResult(sqlmock.NewResult(0, 0)) // New
//	mock.ExpectQuery("locks"). // Lock
//		WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.Granted()...))
//	mock.ExpectQuery("locks"). // Unlock
//		WillReturnRows(sqlmock.NewRows(locktest.UnlockColumns).AddRow(locktest.Unlocked()...))
//	mock.ExpectExec("locks").WillReturnResult(sqlmock.NewResult(0, 1)) // Enable, Disable
//
// The table may have another name. The statements may change with each release of package lock,
// and this package with them.
package locktest

import (
	"database/sql/driver"
	"time"
)

// Columns are the columns of the answer to Lock and to Acquire, which is one row: [Granted],
// [HeldBy] or [Disabled].
var Columns = []string{"written", "component_id", "job_id", "enabled", "locked", "lock_time", "now",
	"refusal", "cockroach"}

// Granted is the answer to a Lock that is granted.
func Granted() []driver.Value {
	now := time.Now().UnixMicro()
	return []driver.Value{now, "", "", true, false, never, now, nil, false}
}

// HeldBy is the answer to a Lock that is refused because another run holds the lock. It acquired
// or last renewed the lock at lockTime. If the IDs are the caller's own, Lock returns nil.
func HeldBy(componentID, jobID string, lockTime time.Time) []driver.Value {
	return []driver.Value{nil, componentID, jobID, true, true, lockTime.UnixMicro(),
		time.Now().UnixMicro(), "held", false}
}

// Disabled is the answer to a Lock that is refused because the job is disabled.
func Disabled() []driver.Value {
	return []driver.Value{nil, "", "", false, false, never, time.Now().UnixMicro(), "disabled", false}
}

// UnlockColumns is the column of the answer to Unlock. If the caller holds the lock, the answer
// is one row, [Unlocked]. Otherwise it has no row, and another query follows, which is answered
// with [StatusColumns].
var UnlockColumns = []string{"done"}

// Unlocked is the answer to a successful Unlock.
func Unlocked() []driver.Value { return []driver.Value{true} }

// StatusColumns are the columns of the answer to Status, and to the second query of a refused
// Unlock. The answer is one row, such as [Status].
var StatusColumns = []string{"component_id", "job_id", "enabled", "locked", "lock_time", "now",
	"exists", "cockroach"}

// Status is the row of a lock that is held.
func Status(componentID, jobID string, lockTime time.Time) []driver.Value {
	return []driver.Value{componentID, jobID, true, true, lockTime.UnixMicro(),
		time.Now().UnixMicro(), true, false}
}

// never is the lock_time of a lock that nobody has held.
var never = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
