//go:build linux

package torture

import (
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A variant is a client that the checker must find guilty, except the first. Most are this
// library with another statement.
type variant struct {
	old bool                              // the statements of the 2018 package
	say func(number int, q string) string // of the client with that number
}

func (v variant) wording(number int) func(string) string {
	if v.say == nil {
		return nil
	}
	return func(q string) string { return v.say(number, q) }
}

var (
	judged = regexp.MustCompile(`(?s)(\+ interval '1 microsecond'\)\n)\t` +
		`WHERE EXISTS .*?(\n\tRETURNING)`)
	owned  = regexp.MustCompile(`component_id = (\$2::text) AND job_id = (\$4::text)`)
	inTerm = regexp.MustCompile(`(?s)component_id = .*?(\nRETURNING)`)
)

const (
	rivals = "pg_try_advisory_xact_lock(hashtext($1::text), hashtext($3::text))"
	anyone = "concat($2::text, $4::text, $5::text, $6::text, $7::text) IS NOT NULL"
)

var variants = map[string]variant{
	"": {},
	// It reads the row, decides in the client, and writes: see the test of the roll-out.
	"old client": {old: true},
	// The row is written as the snapshot had it, although another may have changed it since.
	"non-atomic takeover": {say: func(_ int, q string) string {
		return judged.ReplaceAllString(strings.Replace(q, rivals, "TRUE", 1), "${1}WHERE TRUE$2")
	}},
	// Every second client is a second ahead.
	"client clock": {say: func(number int, q string) string {
		now := time.UnixMicro(wall() +
			int64(number%2)*1e6).UTC().Format("2006-01-02 15:04:05.999999Z07:00")
		return strings.ReplaceAll(q, "clock_timestamp()", "timestamptz '"+now+"'")
	}},
	"unlock without owner check": {say: func(_ int, q string) string {
		if !strings.HasPrefix(q, "UPDATE locks SET status") {
			return q
		}
		return owned.ReplaceAllString(q, "$1 || $2 IS NOT NULL")
	}},
	"renew after loss": {say: func(_ int, q string) string {
		if !strings.HasPrefix(q, "UPDATE locks SET lock_time") {
			return q
		}
		return inTerm.ReplaceAllString(q, strings.ReplaceAll(anyone, "$", "$$")+"$1")
	}},
	"tick twice": {say: func(_ int, q string) string {
		return strings.Replace(q, "l.job_id::text = $4::text", "$4::text IS NULL", 1)
	}},
	"tick given back as run": {say: func(_ int, q string) string {
		return strings.Replace(q, "job_id = $7::text", "job_id = coalesce($4::text, $7::text)", 1)
	}},
	// A renewal without a reply is one that has not been made.
	"renewal not in doubt": {say: func(_ int, q string) string {
		if !strings.HasPrefix(q, "UPDATE locks SET lock_time") {
			return q
		}
		return strings.Replace(q, "lock_time >= timestamptz", "lock_time = timestamptz", 1)
	}},
}

// The old client's sequence, as in the tests of the library: it reads, decides by its own clock,
// writes, and reads again.

var errOldRefusal = errors.New("refused")

type oldRow struct {
	componentName, componentID, jobName, jobID string
	enabled                                    bool
	status                                     string
	lockTime                                   time.Time
}

func oldRead(db *sql.DB, job string) (r oldRow, err error) {
	// The time that the old client writes into a new row.
	db.Exec(`INSERT INTO locks
(component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (component_name, job_name) DO NOTHING`,
		component, "", job, "", true, "UNLOCKED", time.Time{})
	err = oldLook(db, job, &r)
	return r, err
}

func oldLook(db *sql.DB, job string, r *oldRow) error {
	return db.QueryRow("SELECT * FROM locks WHERE component_name = $1 AND job_name = $2", component,
		job).Scan(
		&r.componentName, &r.componentID, &r.jobName, &r.jobID, &r.enabled, &r.status, &r.lockTime)
}

func oldLock(db *sql.DB, componentID, job, jobID string, longest time.Duration) (token int64,
	err error) {
	r, err := oldRead(db, job)
	if err != nil {
		return 0, err
	}
	if !r.enabled {
		return 0, errOldRefusal
	}
	update := `UPDATE locks SET component_id = $1, job_id = $2, status = 'LOCKED', lock_time = $3
WHERE component_name = $4 AND job_name = $5 AND enabled = TRUE`
	now := time.UnixMicro(wall()).UTC()
	if !now.After(r.lockTime.Add(longest)) {
		update += " AND status = 'UNLOCKED'"
	}
	db.Exec(update, componentID, jobID, now, component, job)
	if err := oldLook(db, job, &r); err != nil {
		return 0, err
	}
	if r.componentID != componentID || r.jobID != jobID || !r.enabled || r.status != "LOCKED" {
		return 0, fmt.Errorf("%w: %s:%s has it", errOldRefusal, r.componentID, r.jobID)
	}
	return r.lockTime.UnixMicro(), nil
}

func oldUnlock(db *sql.DB, componentID, job, jobID string) error {
	db.Exec(`UPDATE locks SET status = 'UNLOCKED'
WHERE component_name = $1 AND component_id = $2 AND job_name = $3 AND job_id = $4`,
		component, componentID, job, jobID)
	r, err := oldRead(db, job)
	if err == nil && r.status != "UNLOCKED" {
		err = fmt.Errorf("%w: %s:%s has it", errOldRefusal, r.componentID, r.jobID)
	}
	return err
}

func oldSet(db *sql.DB, job string, enabled bool) error {
	if _, err := oldRead(db, job); err != nil {
		return err
	}
	_, err := db.Exec("UPDATE locks SET enabled = $1 WHERE component_name = $2 AND job_name = $3",
		enabled, component, job)
	return err
}
