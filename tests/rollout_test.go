package tests

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// A locker is a client of the table, of this release or the old one.
type locker interface {
	Disable(componentName, jobName string) error
	Enable(componentName, jobName string) error
	Lock(componentName, componentID, jobName, jobID string, jobTTL time.Duration) error
	Unlock(componentName, componentID, jobName, jobID string) error
}

// oldClient sends the statements of the 2018 package: it reads the row, decides by its own clock,
// writes, and reads again to see whether it won. It ignores errors of the write.
type oldClient struct {
	s   lock.Storage
	now func() time.Time
}

func newOldClient(s lock.Storage) *oldClient { return &oldClient{s, time.Now} }

type oldRefusal struct{ reason string }

func (e *oldRefusal) Error() string { return e.reason }

type oldRow struct {
	componentName, componentID, jobName, jobID string
	enabled                                    bool
	status                                     string
	lockTime                                   time.Time
}

func (c *oldClient) insert(component, job string) {
	c.s.Exec(`INSERT INTO locks
(component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (component_name, job_name) DO NOTHING`,
		component, "", job, "", true, "UNLOCKED", time.Time{})
}

func (c *oldClient) read(component, job string) (r oldRow, err error) {
	err = c.s.QueryRow("SELECT * FROM locks WHERE component_name = $1 AND job_name = $2", component,
		job).Scan(
		&r.componentName, &r.componentID, &r.jobName, &r.jobID, &r.enabled, &r.status, &r.lockTime)
	return r, err
}

func (c *oldClient) Lock(component, componentID, job, jobID string, max time.Duration) error {
	c.insert(component, job)
	r, err := c.read(component, job)
	if err != nil {
		return err
	}
	if !r.enabled {
		return &oldRefusal{"disabled"}
	}
	update := `UPDATE locks SET component_id = $1, job_id = $2, status = 'LOCKED', lock_time = $3
WHERE component_name = $4 AND job_name = $5 AND enabled = TRUE`
	if !c.now().After(r.lockTime.Add(max)) {
		update += " AND status = 'UNLOCKED'"
	}
	c.s.Exec(update, componentID, jobID, c.now().UTC(), component, job)
	if r, err = c.read(component, job); err != nil {
		return err
	}
	if r != (oldRow{component, componentID, job, jobID, true, "LOCKED", r.lockTime}) {
		return &oldRefusal{fmt.Sprintf("%s:%s has it", r.componentID, r.jobID)}
	}
	return nil
}

func (c *oldClient) Unlock(component, componentID, job, jobID string) error {
	c.insert(component, job)
	c.s.Exec(`UPDATE locks SET status = 'UNLOCKED'
WHERE component_name = $1 AND component_id = $2 AND job_name = $3 AND job_id = $4`,
		component, componentID, job, jobID)
	r, err := c.read(component, job)
	if err != nil {
		return err
	}
	if r.status != "UNLOCKED" {
		return &oldRefusal{fmt.Sprintf("%s:%s has it", r.componentID, r.jobID)}
	}
	return nil
}

func (c *oldClient) set(component, job string, enabled bool) error {
	c.insert(component, job)
	_, err := c.s.Exec("UPDATE locks SET enabled = $1 WHERE component_name = $2 AND job_name = $3",
		enabled, component, job)
	return err
}

func (c *oldClient) Enable(component, job string) error  { return c.set(component, job, true) }
func (c *oldClient) Disable(component, job string) error { return c.set(component, job, false) }

func refused(err error) bool {
	var (
		old *oldRefusal
		u   *lock.ErrUnauthorised
		d   *lock.ErrDisabled
	)
	return errors.As(err, &old) || errors.As(err, &u) || errors.As(err, &d)
}

func TestLock_besides2018_rows(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		for name, pair := range map[string][2]locker{
			"old first": {newOldClient(tb.DB), lock.New(tb.DB)},
			"new first": {lock.New(tb.DB), newOldClient(tb.DB)},
		} {
			t.Run(name, func(t *testing.T) {
				tb := tb.With(t)
				tb.Remove()
				first, second := pair[0], pair[1]
				isRefused := func(err error) { t.Helper(); require.True(t, refused(err), "%v", err) }

				require.NoError(t, first.Lock(component, "a", job, "1", time.Hour))
				isRefused(second.Lock(component, "b", job, "2", time.Hour))
				isRefused(second.Unlock(component, "b", job, "2"))
				require.NoError(t, first.Unlock(component, "a", job, "1"))
				require.NoError(t, second.Lock(component, "b", job, "2", time.Hour))
				isRefused(first.Lock(component, "a", job, "1", time.Hour))
				// One release may unlock what the other has locked for the same run.
				require.NoError(t, first.Unlock(component, "b", job, "2"))

				require.NoError(t, first.Disable(component, job))
				isRefused(second.Lock(component, "b", job, "2", time.Hour))
				require.NoError(t, second.Enable(component, job))
				require.NoError(t, first.Lock(component, "a", job, "1", time.Hour))

				// Expired: the other takes over, and the first is locked out.
				tb.Put(dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED",
					Age: time.Hour})
				require.NoError(t, second.Lock(component, "b", job, "2", time.Minute))
				isRefused(first.Unlock(component, "a", job, "1"))
				isRefused(first.Lock(component, "a", job, "1", time.Minute))

				// A row that the other release has made, and nobody has held.
				require.NoError(t, second.Enable("shop", "new job"))
				require.NoError(t, first.Lock("shop", "a", "new job", "1", time.Minute))
			})
		}
	})
}

// TestLock_besides2018_exclusion lets instances of both compete for a lock that doesn't expire,
// until each release has had it.
func TestLock_besides2018_exclusion(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		db := e.Open(t)
		var (
			inside atomic.Int32
			runs   [2]atomic.Int32
		)
		lock.New(db)
		together(8, func(i int) {
			release := i % 2
			l := []locker{newOldClient(db), lock.New(db)}[release]
			for n := 0; n < rounds() || runs[0].Load() == 0 || runs[1].Load() == 0; n++ {
				if l.Lock(component, instance(i), job, "run", time.Hour) != nil {
					continue
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d instances are at work", n)
				}
				runs[release].Add(1)
				inside.Add(-1)
				// The old release may report a refusal although it has unlocked; it tries only
				// once.
				l.Unlock(component, instance(i), job, "run")
			}
		})
	})
}

// paused is a Storage that does something before one of its statements.
type paused struct {
	lock.Storage
	statements int
	at         int // before which statement, from 1
	do         func()
}

func (p *paused) step() {
	p.statements++
	if p.statements == p.at {
		p.do()
	}
}

func (p *paused) Exec(query string, args ...interface{}) (sql.Result, error) {
	p.step()
	return p.Storage.Exec(query, args...)
}

func (p *paused) QueryRow(query string, args ...interface{}) *sql.Row {
	p.step()
	return p.Storage.QueryRow(query, args...)
}

// TestOldClient_defects shows six defects of the old sequence of statements, and that ours
// has none of them. Each defect is a situation in which at most one answer is right; it says what
// was wrong, or "". In most of them something happens between two statements of the caller's, so
// each is tried at every such place.
func TestOldClient_defects(t *testing.T) {
	expired := dbtest.Row{ComponentID: "x", JobID: "0", Enabled: true, Status: "LOCKED",
		Age: time.Hour}
	lockAs := func(l locker, id string) error { return l.Lock(component, id, job, "run", time.Minute) }
	holder := func(tb dbtest.Table) string {
		if s := tb.Get(component, job); s.Status.String == "LOCKED" {
			return s.ComponentID.String
		}
		return ""
	}
	// pausing runs the scene with the caller paused before its first, second … statement.
	pausing := func(scene func(tb dbtest.Table, make func(lock.Storage) locker,
		p *paused) string) func(dbtest.Table, func(lock.Storage) locker) string {
		return func(tb dbtest.Table, make func(lock.Storage) locker) string {
			for at := 1; ; at++ {
				p := &paused{Storage: tb.DB, at: at}
				if wrong := scene(tb, make, p); wrong != "" || p.statements < at {
					return wrong
				}
			}
		}
	}

	defects := []struct {
		name  string
		scene func(tb dbtest.Table, make func(lock.Storage) locker) string
	}{
		{"two challengers of an expired lock both win", pausing(func(tb dbtest.Table,
			make func(lock.Storage) locker, p *paused) string {
			tb.Put(expired)
			var other error
			l := make(p)
			p.statements = 0
			p.do = func() { other = lockAs(make(tb.DB), "b") }
			mine := lockAs(l, "a")
			if p.statements >= p.at && mine == nil && other == nil {
				return "both won"
			}
			return ""
		})},
		{"a stale reader steals a lock just granted to a third", pausing(func(tb dbtest.Table,
			make func(lock.Storage) locker, p *paused) string {
			tb.Put(expired)
			l := make(p)
			p.statements = 0
			granted := false
			p.do = func() {
				other := make(tb.DB)
				if other.Unlock(component, "x", job, "0") == nil {
					granted = lockAs(other, "b") == nil
				}
			}
			lockAs(l, "a")
			if granted && holder(tb) != "b" {
				return "it was stolen"
			}
			return ""
		})},
		{"a driver's error is reported as a refusal", func(tb dbtest.Table,
			make func(lock.Storage) locker) string {
			tb.Put(dbtest.Row{ComponentID: "x", JobID: "0", Enabled: true, Status: "UNLOCKED",
				Age: time.Hour})
			l := make(failingWrites{tb.DB})
			if err := l.Lock(component, "a", job, "run", 2*time.Hour); err == nil || refused(err) {
				return fmt.Sprintf("the answer was: %v", err)
			}
			return ""
		}},
		{"the client's clock decides", func(tb dbtest.Table,
			make func(lock.Storage) locker) (wrong string) {
			tb.Put(expired)
			synctest.Test(tb.T.(*testing.T), func(t *testing.T) { // where it is the year 2000
				db, err := sql.Open(tb.Engine.Driver, tb.DSN)
				require.NoError(t, err)
				defer db.Close()
				if lockAs(make(db), "a") != nil {
					wrong = "an expired lock was not taken over"
				}
			})
			return wrong
		}},
		{"without a longest duration it is always stealable", func(tb dbtest.Table,
			make func(lock.Storage) locker) string {
			tb.Put(dbtest.Row{ComponentID: "x", JobID: "0", Enabled: true, Status: "LOCKED",
				Age: time.Second})
			if make(tb.DB).Lock(component, "a", job, "run", 0) == nil {
				return "it was stolen"
			}
			return ""
		}},
		{"a Disable in the middle leaves it locked and blames the caller",
			pausing(func(tb dbtest.Table, make func(lock.Storage) locker, p *paused) string {
				tb.Put(dbtest.Row{ComponentID: "x", JobID: "0", Enabled: true, Status: "UNLOCKED",
					Age: time.Hour})
				l := make(p)
				p.statements = 0
				p.do = func() { require.NoError(tb.T, make(tb.DB).Disable(component, job)) }
				if err := lockAs(l, "a"); err != nil && holder(tb) == "a" {
					return fmt.Sprintf("the caller holds it and was told: %v", err)
				}
				return ""
			})},
	}
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		lock.New(all.DB)
		for _, defect := range defects {
			t.Run(defect.name, func(t *testing.T) {
				tb := all.With(t)
				wrong := defect.scene(tb, func(s lock.Storage) locker { return newOldClient(s) })
				require.NotEmpty(t, wrong, "the scene doesn't show the defect")
				t.Log("the old release:", wrong)
				require.Empty(t, defect.scene(tb, func(s lock.Storage) locker { return lock.New(s) }))
			})
		}
	})
}

// failingWrites is a Storage whose statements fail if they write.
type failingWrites struct{ db *sql.DB }

func (f failingWrites) Exec(query string, args ...interface{}) (sql.Result, error) {
	if strings.Contains(query, "UPDATE") {
		return f.db.Exec("SELECT * FROM there_is_no_such_table")
	}
	return f.db.Exec(query, args...)
}

func (f failingWrites) QueryRow(query string, args ...interface{}) *sql.Row {
	if strings.Contains(query, "UPDATE") {
		return f.db.QueryRow("SELECT * FROM there_is_no_such_table")
	}
	return f.db.QueryRow(query, args...)
}
