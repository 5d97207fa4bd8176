package tests

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
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
	s lock.Storage
}

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
	if !time.Now().After(r.lockTime.Add(max)) {
		update += " AND status = 'UNLOCKED'"
	}
	c.s.Exec(update, componentID, jobID, time.Now().UTC(), component, job)
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
			"old first": {&oldClient{tb.DB}, lock.New(tb.DB)},
			"new first": {lock.New(tb.DB), &oldClient{tb.DB}},
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
			l := []locker{&oldClient{db}, lock.New(db)}[release]
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
