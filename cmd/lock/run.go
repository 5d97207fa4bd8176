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
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	usualMax   = time.Minute
	usualGrace = 10 * time.Second
	// reserve is the time after the grace in which what was killed goes away, before another machine can get the lock. The
	// guard's turn is in the middle of it.
	reserve = 500 * time.Millisecond
	// releaseTimeout bounds the release at the end, which the exit of the command waits for.
	releaseTimeout = 5 * time.Second
	// killTimeout is for how long we wait for what was killed.
	killTimeout = 5 * time.Second
)

// A run is what lock run was asked for.
type run struct {
	*app
	component, componentID, job, jobID, tick string
	wait, ifHeld                             string
	max, grace, poll                         time.Duration
	stopWhenDisabled                         bool
}

func (a *app) runCommand() *cobra.Command {
	r := &run{app: a}
	cmd := &cobra.Command{
		Use:   "run --job NAME [flags] [--] COMMAND [ARGUMENT...]",
		Short: "run a command while holding the lock of a job",
		Long: `Runs the command if nobody else holds the lock of the job, and keeps the lock while the command runs, however long that is.
The lock is given back when the command has ended.

The command has our standard input, output and error, and the signals that we get are passed on to it. Its exit status becomes
ours; it is 128 and the number of the signal if a signal has ended it.

When a machine dies, another can get the lock after --max. State the same --max on all machines: it is the challenger's that
counts. With --max 0 a lock never expires, and somebody has to release that of a dead machine ("lock release").

When the lock is lost, because the database could not be reached in time or somebody has released it by force, the command is
ended before another can get the lock: with TERM, and with KILL after --grace. The same becomes of what the command has left
running when it ends, except for daemons, which have a session of their own. A command at a terminal stays in the process
group of lock run, so that it can read from the terminal and gets its Ctrl-C; otherwise it gets a group of its own.

When lock run itself is killed, or stopped for so long that the lock runs out, a second process, "lock guard", kills the
command.

With --tick, a run that a schedule asks for on several machines is made once, even if their clocks differ: a machine that
comes when the tick has been run already, or a later one, is refused. The names of the ticks have to be of one length and sort
like the ticks, as dates do. A run whose command has failed has been made; one whose machine died has not.`,
		Example: `# In the crontab of all five servers: one of them makes the backup.
15 2 * * *  lock run --job nightly-backup --tick "$(date -u +\%F)" --if-held skip -- /opt/backup.sh --full

# Deploy after whoever else is deploying, but don't wait longer than ten minutes.
lock run --job deploy --wait 10m --grace 1m --max 5m -- ./deploy.sh

# One worker, wherever it runs; the other machines stand by.
while :; do lock run --job outbox --wait forever --max 30s -- ./drain; sleep 1; done`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("there is no command to run")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("grace") && r.max > 0 {
				r.grace = max(min(usualGrace, r.max/4, r.max/2-reserve), 0)
			}
			return r.run(args)
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitInternal, exitHeld, exitDisabled, exitRun, exitLost, exitCannot, exitNotFound, exitSignal)
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	f.StringVar(&r.job, "job", "", "the `name` of the job (required)")
	componentFlag(cmd, &r.component)
	f.DurationVar(&r.max, "max", usualMax, "for what `duration` a dead machine keeps the lock; that of one that is alive is renewed. At least 1s; 0: for ever")
	f.StringVar(&r.wait, "wait", "0", "how long to wait for the lock: a `duration` like 10m, or forever")
	f.DurationVar(&r.poll, "poll", 0, "at what `interval` to look at a lock that is waited for (default 1s)")
	f.StringVar(&r.ifHeld, "if-held", "fail", "`what` happens if another holds the lock, or the tick has been run: fail, or skip, which exits 0 and says nothing")
	f.StringVar(&r.tick, "tick", "", "the `name` of the tick of a schedule, such as 2026-11-23, that is to be run once")
	f.DurationVar(&r.grace, "grace", usualGrace, "when the lock is lost, the `duration` from TERM to KILL; at most half of --max, less half a second")
	f.Lookup("grace").DefValue = "10s, or a quarter of --max if that is shorter"
	f.BoolVar(&r.stopWhenDisabled, "stop-when-disabled", false, "end the command when the job is disabled; otherwise a run that has begun goes on")
	f.StringVar(&r.componentID, "component-id", "", "the `ID` by which the others see us (default: the host's name, the process, and something random)")
	f.StringVar(&r.jobID, "job-id", "", "the `ID` of this run (default: something random). The two IDs together must never be used twice at once")
	cmd.MarkFlagsMutuallyExclusive("tick", "job-id")
	cmd.RegisterFlagCompletionFunc("if-held", cobra.FixedCompletions([]string{"fail", "skip"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("job", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return a.completeJobs(&r.component)(cmd, nil, begun)
	})
	return cmd
}

// request makes a Job of the flags, or says what is wrong with them.
func (r *run) request() (lock.Job, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	j := lock.Job{
		ComponentName: r.component, ComponentID: cmp.Or(r.componentID, fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])),
		JobName: r.job, JobID: r.jobID, TTL: r.max, Poll: r.poll, StopWhenDisabled: r.stopWhenDisabled,
	}
	for flag, s := range map[string]string{"component": j.ComponentName, "component-id": j.ComponentID, "job": j.JobName, "job-id or --tick": j.JobID} {
		if !utf8.ValidString(s) {
			return j, usagef("--%s %q is not valid UTF-8", flag, s)
		}
	}
	switch {
	case r.job == "":
		return j, usagef("--job says which job; it is missing")
	case r.max != 0 && r.max < time.Second:
		return j, usagef("--max %v: it is 0, or at least 1s", r.max)
	case r.grace < 0 || r.poll < 0:
		return j, usagef("--grace and --poll can't be negative")
	case r.ifHeld != "fail" && r.ifHeld != "skip":
		return j, usagef("--if-held %q: it is fail or skip", r.ifHeld)
	}
	if r.max > 0 {
		// When a lease counts as lost, there has to be time to end the command; and the lease has to live long enough to be renewed,
		// every third of max.
		if j.Margin = max(r.max/10, r.grace+reserve); j.Margin > r.max/2 {
			return j, usagef("--grace %v is too long for --max %v: half of it less %v is the most, %v", r.grace, r.max, reserve, r.max/2-reserve)
		}
	}
	if r.wait == "forever" {
		j.Wait = lock.Forever
	} else if j.Wait, err = time.ParseDuration(r.wait); err != nil || j.Wait < 0 {
		return j, usagef("--wait %q: it is a duration like 10m, or forever", r.wait)
	}
	return j, nil
}

func (r *run) run(argv []string) error {
	job, err := r.request()
	if err != nil {
		return err
	}
	// A command that isn't there shall not cost the tick.
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return startFailure(err)
	}
	g := &guard{says: r.says}
	if r.max > 0 {
		g.lasts = r.max - job.Margin + r.grace + reserve/2
	}
	o := r.options()
	o.Observer = func(_ context.Context, e lock.Event) {
		g.observe(e)
		r.report(e)
	}
	signals := catch()
	r.says.about("component", job.ComponentName, "job", job.JobName, "component_id", job.ComponentID, "job_id", job.JobID)
	ctx, settle := r.untilSignal(signals, callTimeout)
	l, done, err := r.connect(ctx, o)
	if stopped := settle(); stopped != nil {
		return stopped
	}
	if err != nil {
		return err
	}
	defer done()
	lease, err := r.acquire(l, job, signals)
	if err != nil {
		if err = judge(err); r.ifHeld == "skip" {
			var f *failure
			if errors.As(err, &f) && (f.code == exitHeld || f.code == exitRun) {
				r.says.info(f.Error())
				return nil
			}
		}
		return err
	}
	if from := lease.TakenFrom(); from != nil {
		r.says.warn(fmt.Sprintf("%s: taken over from %s, which was last heard of %s ago", r.name(), holderWords(*from), ageWords(from.Age)))
	}
	status, err := r.hold(lease, g, path, argv, signals)
	err = r.release(lease, status, err)
	if err == nil && status != 0 {
		err = &failure{code: status}
	}
	return err
}

func (r *run) name() string { return jobWords(r.component, r.job) }

// report tells a user who wants to know.
func (r *run) report(e lock.Event) {
	if e.Kind == lock.Failed && e.Operation == "Renew" {
		r.says.warn(fmt.Sprintf("%s: the lock could not be renewed, and will be tried again: %v", r.name(), bare(e.Err)))
	} else if e.Err == nil {
		r.says.info(fmt.Sprintf("%s: %s", r.name(), e.Kind), slog.Int64("token", e.Token))
	}
}

// catch catches the signals that the command shall have. Those that we were started to ignore, as by nohup, it ignores too.
func catch() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	// That nobody reads our messages any more is no reason to die, and with us the command.
	if !signal.Ignored(unix.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	}
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	return signals
}

// untilSignal returns a context that a signal ends, or the end of the time that there is, unless that is negative. The caller
// calls settle when it needs neither any more; it returns the failure to end with if a signal has come.
func (r *run) untilSignal(signals <-chan os.Signal, most time.Duration) (ctx context.Context, settle func() error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	settled := make(chan struct{})
	interrupted := make(chan error, 1)
	var late <-chan time.Time
	if most >= 0 {
		late = time.After(most)
	}
	go func() {
		defer close(interrupted)
		select {
		case sig := <-signals:
			err := &failure{exitSignal + int(sig.(syscall.Signal)), fmt.Errorf("%s: ended by a signal (%v) before the command began", r.name(), sig)}
			interrupted <- err
			cancel(err)
		case <-late:
			cancel(fmt.Errorf("no answer within %v", most))
		case <-settled:
		}
	}()
	return ctx, func() error {
		close(settled)
		return <-interrupted
	}
}

// acquire acquires the lock, unless a signal comes first.
func (r *run) acquire(l *lock.Lock, job lock.Job, signals <-chan os.Signal) (*lock.Lease, error) {
	most := time.Duration(-1)
	if job.Wait != lock.Forever {
		most = job.Wait + callTimeout
	}
	ctx, settle := r.untilSignal(signals, most)
	at := job
	at.Wait = 0
	lease, err := l.Acquire(ctx, at)
	if err != nil && job.Wait != 0 && worthWaiting(err) {
		var f *failure
		errors.As(judge(err), &f)
		r.says.info(r.says.words(f) + "; waiting")
		lease, err = l.Acquire(ctx, job)
		if err == nil {
			// The guard needs to know since when we have the lock, and what it has heard of is the whole wait.
			if err = lease.Renew(ctx); err != nil {
				r.giveBack(lease)
			}
		}
	}
	stopped := settle()
	switch {
	case stopped == nil:
		return lease, err
	case lease != nil:
		r.giveBack(lease)
	case errors.Is(err, lock.ErrOutcomeUnknown) && job.Tick.IsZero(): // an unlocked tick would count as run
		ctx, done := context.WithTimeout(context.Background(), releaseTimeout)
		defer done()
		l.UnlockContext(ctx, job.ComponentName, job.ComponentID, job.JobName, job.JobID) // or it expires
	}
	return nil, stopped
}

// worthWaiting says whether the lock may be had later.
func worthWaiting(err error) bool {
	return !errors.As(err, new(*lock.ErrDisabled)) && !errors.As(err, new(*lock.ErrAlreadyRun))
}

// giveBack releases a lock that nothing was done with. If that fails, it expires, and there is something else to tell.
func (r *run) giveBack(lease *lock.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	lease.Release(ctx)
}

// hold runs the command while we have the lease. The error says that the lease was lost, or why the command could not be run.
func (r *run) hold(lease *lock.Lease, g *guard, path string, argv []string, signals <-chan os.Signal) (status int, err error) {
	job := lease.Job()
	p := processes{Group: !atTerminal(), Marks: []string{
		"LOCK_TOKEN=" + strconv.FormatInt(lease.Token(), 10), "LOCK_COMPONENT=" + job.ComponentName,
		"LOCK_JOB=" + job.JobName, "LOCK_JOB_ID=" + job.JobID}}
	if p.Session, err = unix.Getsid(0); err != nil {
		return 0, fail(exitInternal, err)
	}
	// The guard comes first, so that there is no moment without it.
	if err := g.start(p, r.name()); err != nil {
		return 0, fail(exitInternal, fmt.Errorf("the guard can't be started: %w", err))
	}
	defer g.dismiss()
	c, err := startChild(path, argv, p)
	if err != nil {
		return 0, startFailure(err)
	}
	g.tell(func(o *orders) { o.Processes = c.processes })
	return r.watch(lease, c, signals)
}

// watch passes on signals, and returns when no process of the command is left: all ended by themselves, or were ended because
// the lease is lost or the command left them behind.
func (r *run) watch(lease *lock.Lease, c *child, signals <-chan os.Signal) (status int, err error) {
	var (
		over    = lease.Context().Done()
		ended   = c.ended
		ending  bool             // TERM has been sent
		kill    <-chan time.Time // when it is time for KILL
		giveUp  <-chan time.Time // after KILL
		tick    = time.NewTicker(20 * time.Millisecond)
		endedAt time.Time
	)
	defer tick.Stop()
	end := func(grace time.Duration) {
		ending, kill = true, time.After(grace)
		if grace > 0 {
			c.signal(unix.SIGTERM)
			c.signal(unix.SIGCONT) // or what is stopped would not hear it
		}
	}
	for {
		// Looking for processes costs something, so it is done only when it can be the end.
		look := tick.C
		if ended != nil && giveUp == nil {
			look = nil
		}
		select {
		case sig := <-signals:
			// What a terminal sends, it has sent to the command, too.
			if c.Group || sig != unix.SIGINT && sig != unix.SIGQUIT {
				c.pass(sig.(syscall.Signal))
			}
		case state := <-ended:
			ended, endedAt, status = nil, time.Now(), childStatus(state)
			if !c.Group {
				c.PID = 0 // which may be another's now
			}
			if !c.alive() {
				return status, err
			}
		case <-over:
			over = nil
			err = lostFailure(context.Cause(lease.Context()))
			r.says.say(slog.LevelError, fmt.Sprintf("%s: %v: ending the command", r.name(), err), slog.Int("exit", exitLost))
			end(r.grace)
		case <-kill:
			kill, giveUp = nil, time.After(killTimeout)
			if r.grace > 0 {
				r.says.warn(fmt.Sprintf("%s: not ended %v after TERM: killing it", r.name(), r.grace))
			}
			c.signal(unix.SIGKILL)
		case <-look:
			switch {
			case ended == nil && !c.alive():
				return status, err
			case giveUp != nil:
				c.signal(unix.SIGKILL) // what was started since
			case !ending && time.Since(endedAt) > 100*time.Millisecond: // it may be about to end by itself
				r.says.warn(fmt.Sprintf("%s: the command has ended (%d) and left processes running: ending them", r.name(), status))
				end(r.grace)
			}
		case <-giveUp:
			r.says.say(slog.LevelError, fmt.Sprintf("%s: not gone %v after KILL: leaving it behind", r.name(), killTimeout))
			return status, err
		}
	}
}

// lostFailure is the failure of a lease that was lost, in the words of what happened to it.
func lostFailure(cause error) error {
	var (
		held     *lock.ErrUnauthorised
		disabled *lock.ErrDisabled
	)
	switch {
	case errors.As(cause, &held):
		cause = fmt.Errorf("the lock is lost: %s holds it", holderWords(held.Holder()))
	case errors.As(cause, &disabled):
		cause = errors.New("the lock is lost: the job has been disabled")
	}
	return &failure{exitLost, cause}
}

// release gives the lock back and says how the run has come out. A lease that is lost is released as well: if it was lost for
// another reason than another holder, nobody has to wait for it to expire.
func (r *run) release(lease *lock.Lease, status int, err error) error {
	var (
		f       *failure
		lost    = errors.As(err, &f) && f.code == exitLost
		timeout = releaseTimeout
	)
	cause := context.Cause(lease.Context())
	if lost {
		timeout = time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	released := lease.Release(ctx)
	switch {
	case lost:
		return &failure{code: exitLost} // watch has said why
	case err != nil:
		return err
	case cause != nil, errors.Is(released, lock.ErrLost):
		return &failure{exitLost, fmt.Errorf("%s: %w: before the command ended (%d)", r.name(), lostFailure(errors.Join(cause, released)), status)}
	case released != nil:
		r.says.warn(fmt.Sprintf("%s: the command has ended, but its lock could not be released, and expires: %v", r.name(), bare(released)))
	}
	return nil
}
