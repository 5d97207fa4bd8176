package lock

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Job describes the lease that [Lock.Acquire] and [Lock.Run] ask for.
type Job struct {
	ComponentName string // the fleet
	JobName       string // what it does one at a time; required

	// ComponentID is the instance. "" means the host name, the process ID and something random.
	// With a Tick, something random is always appended, so that no two runs of a tick are one
	// holder.
	ComponentID string
	// JobID is the run. "" means the time at which it is asked for, in UTC, and something random.
	// Together with ComponentID it identifies the holder: no two runs that may overlap may have
	// both in common, not even in one process. It must be "" if the job has a Tick.
	JobID string

	// TTL is how long the lock outlives its last renewal; it is renewed every third of that. If
	// the holder dies, the others wait for as long. 0 means a minute. Forever means that the lock
	// never expires.
	TTL time.Duration
	// Margin is how long before the end of the TTL a lease that could not be renewed counts as
	// lost. It covers the time that the job needs to stop, and the difference of the clocks of
	// the database's servers. 0 means a tenth of the TTL.
	Margin time.Duration

	// Wait is how long to wait while another holds the lock. 0 means not at all, Forever as long
	// as the context. A waiter sees a release in this process at once, and one in another process
	// at its next look, or at once with [Options.Notifier].
	Wait time.Duration
	// Poll is the time between two looks at the lock while waiting, with ±50% jitter. The first
	// looks follow sooner, and one is made when the holder's lock expires. Of the waiters in a
	// process, only the first looks this often. 0 means a second, 15 seconds with a Notifier, 4
	// milliseconds with SQLite.
	Poll time.Duration

	// Tick is the scheduled time of a run that happens once in the fleet, in whole seconds. The
	// zero time means that the run is no tick. Acquire returns an *[ErrAlreadyRun] if this tick
	// or a later one is being run or has been run, however long ago. If the instance of a run
	// dies, its tick can be run again once the lock has expired. The tick is the job ID in the
	// row. A job should have a tick in each run or in none.
	Tick time.Time
	// TickAhead is how far the tick may be ahead of the database's clock. For one further ahead,
	// Acquire returns an *[ErrTickAhead], so that a fast clock can't silence a schedule. 0 means
	// a minute.
	TickAhead time.Duration
	// RetryFailed leaves the tick free if its run fails: if the function of [Lock.Run] returns an
	// error or panics. Otherwise a run that began counts, even if it failed.
	RetryFailed bool
	// Spacing is the least time between two runs, for jobs without ticks: Acquire returns an
	// *[ErrAlreadyRun] if the last run's lock was acquired, or last renewed, less than that ago.
	Spacing time.Duration

	// StopWhenDisabled makes the lease lost when the job is disabled. Otherwise a run that has
	// begun goes on.
	StopWhenDisabled bool
}

// defaultTTL is the TTL of a job that has none.
const defaultTTL = time.Minute

// tickName returns the name of a tick, as it stands in the row.
func tickName(t time.Time) string { return t.UTC().Format(store.TickLayout) }

// check finds what is wrong with a Job.
func (j Job) check() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"Margin", j.Margin}, {"Wait", j.Wait}, {"Poll", j.Poll},
		{"TickAhead", j.TickAhead}, {"Spacing", j.Spacing},
	} {
		if d.d < 0 {
			return fmt.Errorf("the Job.%s, %v, is negative", d.name, d.d)
		}
	}
	if err := validTTL("Job.TTL", j.TTL); err != nil {
		return err
	}
	switch ttl := cmp.Or(j.TTL, defaultTTL); {
	case j.JobName == "":
		return errors.New("Job.JobName is required")
	case j.Margin >= ttl:
		return fmt.Errorf("Job.Margin, %v, must be less than Job.TTL, %v", j.Margin, ttl)
	case j.Tick.IsZero() && j.RetryFailed:
		return errors.New("Job.RetryFailed needs a Job.Tick")
	case j.Tick.IsZero():
		return nil
	case j.JobID != "":
		return errors.New("Job.JobID must be empty if Job.Tick is set: the tick names the run")
	case j.Tick.Nanosecond() != 0:
		return fmt.Errorf("Job.Tick, %v, is not in whole seconds: round it alike on all instances",
			j.Tick)
	case j.Tick.UTC().Year() < 1 || j.Tick.UTC().Year() > 9999:
		return fmt.Errorf("Job.Tick, %v, is not in the years 1 to 9999", j.Tick)
	case j.Spacing > 0:
		return errors.New("Job.Tick and Job.Spacing can't both be set")
	}
	return nil
}

// fill returns the Job with its defaults. now is when it is asked for.
func (j Job) fill(now time.Time) Job {
	j.TTL = cmp.Or(j.TTL, defaultTTL)
	if j.Margin == 0 && j.TTL != Forever {
		j.Margin = j.TTL / 10
	}
	switch {
	case j.ComponentID == "":
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		j.ComponentID = fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
	case !j.Tick.IsZero():
		j.ComponentID += "/" + rand.Text()[:8]
	}
	switch {
	case !j.Tick.IsZero():
		j.TickAhead = cmp.Or(j.TickAhead, time.Minute)
		j.JobID = tickName(j.Tick)
	case j.JobID == "":
		j.JobID = tickName(now) + "/" + rand.Text()[:8]
	}
	return j
}

// conditions returns when the lock of the job may be acquired.
func (j Job) conditions() store.Conditions {
	cond := store.Conditions{TTL: finite(j.TTL), Spacing: j.Spacing}
	if !j.Tick.IsZero() {
		cond.Tick, cond.Earliest = true, j.Tick.Add(-j.TickAhead)
	}
	return cond
}

// request returns the request of an operation on the lock of the job.
func (j Job) request(operation string) store.Request {
	return store.Request{Operation: operation, ComponentName: j.ComponentName,
		ComponentID: j.ComponentID, JobName: j.JobName, JobID: j.JobID}
}

// givenBack returns the job ID that leaves the run of the job undone in the row: of a tick, the
// one before.
func (j Job) givenBack() string {
	if j.Tick.IsZero() {
		return j.JobID
	}
	return tickName(j.Tick.Add(-time.Second))
}
