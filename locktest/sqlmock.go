// Package locktest helps to test services that use package lock.
package locktest

import (
	"database/sql/driver"
	"time"
)

// Columns are the columns with which a database answers Lock and Unlock, for a test that plays the database with go-sqlmock.
// Enable, Disable and New are answered with a result instead of a row.
//
//	mock.ExpectQuery("locks").WillReturnRows(sqlmock.NewRows(locktest.Columns).AddRow(locktest.Granted()...))
var Columns = []string{"written", "component_id", "job_id", "enabled", "status", "lock_time", "now", "cockroach"}

// Granted is the answer to a Lock or Unlock that succeeds.
func Granted() []driver.Value {
	now := time.Now()
	return []driver.Value{now, nil, nil, nil, nil, nil, now, false}
}

// HeldBy is the answer to a Lock or Unlock that is refused, because a run of another instance has held the lock since a
// time that must not be longer ago than the longest duration that the Lock states.
func HeldBy(componentID, jobID string, since time.Time) []driver.Value {
	return []driver.Value{nil, componentID, jobID, true, "LOCKED", since, time.Now(), false}
}

// Disabled is the answer to a Lock that is refused because the job is disabled.
func Disabled() []driver.Value {
	return []driver.Value{nil, "", "", false, "UNLOCKED", time.Time{}, time.Now(), false}
}
