//go:build unix && !aix && !solaris

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	usualTTL   = time.Minute
	usualGrace = 10 * time.Second
	// reserve is the time after the grace in which killed processes end, before another machine
	// can acquire the lock. The guard kills in the middle of it.
	reserve = 500 * time.Millisecond
)

// A run has the flags of lock run.
type run struct {
	*app
	component, componentID, job, jobID, tick string
	ttl, wait, ifHeld                        string
	grace, poll                              time.Duration
	stopWhenDisabled                         bool

	asked string // the component ID that the lock was asked for with
}

// request returns the Job of the flags, or what is wrong with them.
func (r *run) request(graceSaid bool) (lock.Job, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	random := rand.Text()[:8]
	j := lock.Job{
		ComponentName: r.component, JobName: r.job, JobID: r.jobID,
		ComponentID: cmp.Or(r.componentID, fmt.Sprintf("%s/%d/%s", host, os.Getpid(), random)),
		Poll:        r.poll, StopWhenDisabled: r.stopWhenDisabled,
	}
	for flag, s := range map[string]string{"component": j.ComponentName,
		"component-id": j.ComponentID, "job": j.JobName, "job-id": j.JobID} {
		if !utf8.ValidString(s) {
			return j, usagef("--%s %q is not valid UTF-8", flag, s)
		}
	}
	if j.TTL, err = duration("ttl", r.ttl); err != nil {
		return j, err
	}
	if j.Wait, err = duration("wait", r.wait); err != nil {
		return j, err
	}
	switch {
	case r.job == "":
		return j, usagef("--job is missing")
	case j.TTL < time.Second:
		return j, usagef("--ttl %v: it must be at least 1s, or forever", j.TTL)
	case r.grace < 0 || r.poll < 0:
		return j, usagef("--grace and --poll can't be negative")
	case r.ifHeld != "fail" && r.ifHeld != "skip":
		return j, usagef("--if-held %s: it must be fail or skip", echo(r.ifHeld))
	}
	switch {
	case r.tick != "":
		if j.Tick, j.TickAhead, err = parseTick(r.tick); err != nil {
			return j, err
		}
		if r.componentID == "" { // the library adds a random suffix
			j.ComponentID = fmt.Sprintf("%s/%d", host, os.Getpid())
		}
	case r.jobID == "": // as the library does; but we must know it if a reply is lost
		j.JobID = time.Now().UTC().Format("2006-01-02T15:04:05Z") + "/" + random
	}
	if j.TTL == lock.Forever {
		return j, nil
	}
	half := j.TTL/2 - reserve
	if !graceSaid {
		r.grace = max(min(usualGrace, j.TTL/4, half), 0)
	}
	// When a lease counts as lost, there must be time to end the command. And the lease must live
	// long enough to be renewed, every third of the TTL.
	if j.Margin = max(j.TTL/10, r.grace+reserve); j.Margin > j.TTL/2 {
		return j, usagef("--grace %v is too long for --ttl %v: at most half of it less %v, %v",
			r.grace, j.TTL, reserve, half)
	}
	return j, nil
}

// runID is the ID of the run in the row.
func (r *run) runID(job lock.Job) string {
	if job.Tick.IsZero() {
		return job.JobID
	}
	return job.Tick.Format("2006-01-02T15:04:05Z")
}

func (r *run) run(argv []string, graceSaid bool) error {
	job, err := r.request(graceSaid)
	if err != nil {
		return err
	}
	if _, err := r.target(); err != nil {
		return err
	}
	// Don't ask for a lock if the command doesn't exist.
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return startFailure(err)
	}
	g := &guard{says: r.says}
	if job.TTL != lock.Forever {
		g.lasts = job.TTL - job.Margin + r.grace + reserve/2
	}
	o := r.options()
	o.Observer = func(_ context.Context, e lock.Event) {
		if e.Operation == "Acquire" {
			r.asked = e.ComponentID
		}
		g.observe(e)
		r.report(e)
	}
	signals := catch()
	r.says.with("component", job.ComponentName, "job", job.JobName, "job_id", r.runID(job))
	lease, done, err := r.acquire(o, job, signals)
	if err != nil {
		if r.ifHeld == "skip" && (isCode(err, exitHeld) || isCode(err, exitRun)) {
			r.says.info(err.Error())
			return nil
		}
		return err
	}
	defer done()
	r.says.with("component_id", lease.Job().ComponentID)
	if from := lease.TakenFrom(); from != nil {
		r.says.warn(fmt.Sprintf("%s: taken over from %s, which last acquired or renewed it %s", r.name(),
			holderWords(*from), agoWords(from.Age)))
	}
	return r.hold(lease, g, path, argv, signals)
}

func (r *run) name() string { return jobWords(r.component, r.job) }

// report reports events.
func (r *run) report(e lock.Event) {
	if e.Kind == lock.Failed && e.Operation == "Renew" {
		r.says.warn(fmt.Sprintf("%s: the lock could not be renewed; trying again: %v",
			r.name(), bare(e.Err)))
	} else if e.Err == nil {
		r.says.info(fmt.Sprintf("%s: %s", r.name(), e.Kind), slog.Int64("token", e.Token))
	}
}

// hold runs the command, and then releases the lease.
func (r *run) hold(lease *lock.Lease, g *guard, path string, argv []string,
	signals chan os.Signal) error {
	c, at, err := r.begin(lease, g, path, argv, signals)
	if err != nil {
		g.dismiss()
		if failed := r.giveBack(lease); failed != nil {
			r.says.warn(failed.Error())
		}
		return err
	}
	status, err := r.watch(lease, c, at, signals)
	g.dismiss()
	if err = r.release(lease, status, err); err == nil && status != 0 {
		err = &failure{code: status}
	}
	return err
}

// begin starts the guard and the command.
func (r *run) begin(lease *lock.Lease, g *guard, path string, argv []string,
	signals chan os.Signal) (c *child, at tty, err error) {
	at = openTTY()
	p := processes{Group: at.File == nil, Mark: newMark()}
	if p.Session, err = unix.Getsid(0); err != nil {
		return nil, at, fail(exitInternal, err)
	}
	// The guard comes first, so that the command is never without it.
	if err := g.start(p, r.name()); err != nil {
		return nil, at, fail(exitInternal, fmt.Errorf("the guard can't be started: %w", err))
	}
	catchJobControl(signals)
	// Until here the tick is free. A later signal is for the command.
	select {
	case sig := <-signals:
		return nil, at, r.interrupted(sig)
	default:
	}
	if err := lease.Err(); err != nil {
		return nil, at, fail(exitLost, fmt.Errorf("%s: %w: before the command began", r.name(),
			err))
	}
	if c, err = startChild(path, argv, childEnv(lease, p.Mark), p, g.pid); err != nil {
		return nil, at, startFailure(err)
	}
	g.tell(func(o *orders) { o.Processes = c.processes })
	return c, at, nil
}

// release releases the lock and returns how the run has ended. It also releases a lost lease:
// unless another holds the lock, nobody then has to wait until it expires.
func (r *run) release(lease *lock.Lease, status int, err error) error {
	cause := lease.Err() // at this moment, even if the context has not ended yet
	timeout := releaseTimeout
	if err != nil {
		timeout = time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	released := lease.Release(ctx)
	switch {
	case err != nil:
		return &failure{code: exitLost} // watch has said why
	case cause != nil, errors.Is(released, lock.ErrLost):
		return &failure{exitLost, fmt.Errorf("%s: %w: before the command ended (%d)", r.name(),
			lostFailure(cmp.Or(cause, released)), status)}
	case released != nil:
		r.says.warn(fmt.Sprintf("%s: the command has ended, but its lock could not be released, "+
			"and will expire: %v", r.name(), bare(released)))
	}
	return nil
}
