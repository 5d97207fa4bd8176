package lockcron

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// A skewed schedule is that of an instance whose clock is ahead by so much, for a cron whose clock is right: cron has no clock of
// its own to set. It fires when the instance's clock gets there.
type skewed struct {
	cron.Schedule
	ahead time.Duration
}

func (s skewed) Next(t time.Time) time.Time { return s.Schedule.Next(t.Add(s.ahead)).Add(-s.ahead) }

// skewedParser parses specs with seconds into such schedules.
type skewedParser time.Duration

func (p skewedParser) Parse(spec string) (cron.Schedule, error) {
	s, err := withSeconds.Parse(spec)
	return skewed{s, time.Duration(p)}, err
}

var withSeconds = cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// skews are by how much the clocks of the instances are ahead.
var skews = []time.Duration{0, 3 * time.Second, -4 * time.Second, 2500 * time.Millisecond, -time.Millisecond, 4 * time.Second,
	-1700 * time.Millisecond, time.Millisecond, -3 * time.Second, 800 * time.Millisecond, -time.Second, 1900 * time.Millisecond}

// journal is what a fleet ran and was told.
type journal struct {
	mu   sync.Mutex
	runs map[string]int // how often a tick was run
	told map[locktick.Outcome]int
	errs []error // of Ran and Failed
	news chan locktick.Result
}

func newJournal() *journal {
	return &journal{runs: map[string]int{}, told: map[locktick.Outcome]int{}, news: make(chan locktick.Result, 1)}
}

func (j *journal) guard(l *lock.Lock, skew time.Duration) locktick.Guard {
	return locktick.Guard{
		Lock: l,
		Job:  lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: 30 * time.Second},
		Report: func(_ context.Context, r locktick.Result) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.told[r.Outcome]++
			if r.Err != nil && (r.Outcome == locktick.Ran || r.Outcome == locktick.Failed) {
				j.errs = append(j.errs, r.Err)
			}
			select {
			case j.news <- r:
			default:
			}
		},
		Now: func() time.Time { return time.Now().Add(skew) },
	}
}

// run is the job: it counts the tick that its lease is for.
func (j *journal) run(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.runs[lock.LeaseFrom(ctx).Job().JobID]++
	return nil
}

func TestEachTickIsRunOnceWhateverTheClocksSay(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for name, test := range map[string]struct {
		spec     string
		location *time.Location
		from     time.Time
		to       time.Time
		takes    time.Duration
		wait     time.Duration
	}{
		"every minute":                       {"0 * * * * *", time.UTC, day(3, 1), day(3, 1).Add(time.Hour), time.Second, 0},
		"several within what clocks differ":  {"* * * * * *", time.UTC, day(3, 1), day(3, 1).Add(time.Minute), 100 * time.Millisecond, 900 * time.Millisecond},
		"runs that outlive the longest":      {"0 */10 * * * *", time.UTC, day(3, 1), day(3, 1).Add(3 * time.Hour), 9 * time.Minute, 0},
		"hourly, when summer begins":         {"0 0 * * * *", berlin, day(3, 25), day(3, 27), time.Second, 0},
		"hourly, when summer ends":           {"0 0 * * * *", berlin, day(10, 28), day(10, 30), time.Second, 0},
		"daily in the hour that is left out": {"0 30 2 * * *", berlin, day(3, 24), day(3, 29), time.Second, 0},
		"daily in the hour that is twice":    {"0 30 2 * * *", berlin, day(10, 27), day(11, 1), time.Second, 0},
		"a spec with a time zone":            {"CRON_TZ=Asia/Kolkata 0 0 6 * * *", berlin, day(3, 24), day(3, 29), time.Second, 0},
	} {
		for how, add := range map[string]func(t *testing.T, c *cron.Cron, g locktick.Guard, ahead time.Duration, f func(context.Context) error){
			"AddFunc": func(t *testing.T, c *cron.Cron, g locktick.Guard, ahead time.Duration, f func(context.Context) error) {
				_, err := addFunc(t.Context(), c, test.spec, g, f, func(t time.Time) time.Time { return t.Add(ahead) })
				require.NoError(t, err)
			},
			"Wrapper": func(t *testing.T, c *cron.Cron, g locktick.Guard, ahead time.Duration, f func(context.Context) error) {
				schedule, err := withSeconds.Parse(test.spec)
				require.NoError(t, err)
				once, err := Wrapper(t.Context(), g, schedule, test.location)
				require.NoError(t, err)
				c.Schedule(skewed{schedule, ahead}, cron.NewChain(once).Then(Func(f)))
			},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(test.from.Add(-time.Minute)))
					l, j := lock.NewLocal(nil), newJournal()
					for _, ahead := range skews {
						c := cron.New(cron.WithLocation(test.location), cron.WithParser(skewedParser(ahead)), cron.WithLogger(cron.DiscardLogger))
						g := j.guard(l, ahead)
						g.Job.Wait = test.wait
						add(t, c, g, ahead, func(ctx context.Context) error {
							defer time.Sleep(test.takes)
							return j.run(ctx)
						})
						c.Start()
						defer func() { <-c.Stop().Done() }()
					}
					time.Sleep(time.Until(test.to.Add(-5 * time.Second)))
					synctest.Wait()

					j.mu.Lock()
					defer j.mu.Unlock()
					require.Empty(t, j.errs)
					schedule, err := withSeconds.Parse(test.spec)
					require.NoError(t, err)
					ticks := 0
					for tick := schedule.Next(test.from.In(test.location)); tick.Before(test.to.Add(-20 * time.Second)); tick = schedule.Next(tick) {
						require.Equal(t, 1, j.runs[lock.Tick(tick)], tick)
						ticks++
					}
					require.Greater(t, ticks, 2)
					for tick, times := range j.runs {
						require.Equal(t, 1, times, tick)
					}
					require.Positive(t, j.told[locktick.AlreadyRun])
				})
			})
		}
	}
}

// day is one of the year 2000, in which the bubbles of package synctest begin.
func day(month time.Month, d int) time.Time { return time.Date(2000, month, d, 0, 0, 0, 0, time.UTC) }

func TestASpecWithoutCommonTicksNeedsSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := lock.NewLocal(nil), newJournal()
		c := cron.New(cron.WithLogger(cron.DiscardLogger))
		_, err := AddFunc(t.Context(), c, "@every 1h", j.guard(l, 0), j.run)
		require.ErrorContains(t, err, "@every 1h0m0s begins when the process starts")
		require.Empty(t, c.Entries())
		_, err = Wrapper(t.Context(), j.guard(l, 0), cron.Every(time.Hour), nil)
		require.ErrorContains(t, err, "@every 1h0m0s begins when the process starts")

		begin := time.Now()
		var runs []time.Duration
		for range 4 { // begin ten minutes after the other
			g := j.guard(l, 0)
			g.Job.Spacing = 55 * time.Minute
			c := cron.New(cron.WithLogger(cron.DiscardLogger))
			_, err := AddFunc(t.Context(), c, "@every 1h", g, func(context.Context) error {
				runs = append(runs, time.Since(begin))
				return nil
			})
			require.NoError(t, err)
			c.Start()
			defer func() { <-c.Stop().Done() }()
			time.Sleep(10 * time.Minute)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}, runs)
	})
}

func TestWhatIsWrongIsSaidBeforeAnythingIsAdded(t *testing.T) {
	l := lock.NewLocal(nil)
	ok := newJournal().guard(l, 0)
	noName, jobID := ok, ok
	noName.Job.JobName, jobID.Job.JobID = "", "7"
	for name, test := range map[string]struct {
		guard locktick.Guard
		spec  string
		says  string
	}{
		"the spec":    {ok, "every noon", "expected exactly 5 fields"},
		"no lock":     {locktick.Guard{Job: ok.Job}, "@hourly", "no Lock"},
		"no job name": {noName, "@hourly", "no JobName"},
		"a job ID":    {jobID, "@hourly", `JobID "7"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := cron.New()
			_, err := AddFunc(t.Context(), c, test.spec, test.guard, nil)
			require.ErrorContains(t, err, test.says)
			require.Empty(t, c.Entries())
		})
	}
	_, err := Wrapper(t.Context(), ok, nil, nil)
	require.ErrorContains(t, err, "no Spacing")
}

func TestARunEndsWithItsLeaseAndAPanicIsCrons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, j := lock.NewLocal(nil), newJournal()
		var out bytes.Buffer
		logger := cron.PrintfLogger(log.New(&out, "", 0))
		c := cron.New(cron.WithLogger(logger), cron.WithChain(cron.Recover(logger)))
		lost := make(chan error, 1)
		_, err := AddFunc(t.Context(), c, "* * * * *", j.guard(l, 0), func(ctx context.Context) error {
			if s, err := l.Status(ctx, "shop", "report"); err == nil && len(lost) == 0 {
				l.ForceRelease(ctx, "shop", "report", s.Holder)
				<-ctx.Done()
				lost <- context.Cause(ctx)
				return nil
			}
			panic("the printer is on fire")
		})
		require.NoError(t, err)
		c.Start()
		time.Sleep(2*time.Minute + time.Second)
		<-c.Stop().Done()
		require.ErrorIs(t, <-lost, lock.ErrLost)
		require.Contains(t, out.String(), "the printer is on fire")
		s, err := l.Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.False(t, s.Locked)
	})
}

// at is a schedule with one tick, which is due at once.
type at struct {
	tick  time.Time
	fired bool
}

func (a *at) Next(time.Time) time.Time {
	if a.fired {
		return time.Time{}
	}
	a.fired = true
	return a.tick
}

func (a *at) Parse(string) (cron.Schedule, error) { return a, nil }

// fires lets a cron fire one tick, and returns what has become of it.
func fires(t *testing.T, l *lock.Lock, j *journal, tick time.Time, f func(context.Context) error) locktick.Result {
	c := cron.New(cron.WithParser(&at{tick: tick}), cron.WithLogger(cron.DiscardLogger))
	results := make(chan locktick.Result, 1)
	g := j.guard(l, 0)
	g.Job.MaxDuration = time.Hour
	g.Report = func(_ context.Context, r locktick.Result) { results <- r }
	_, err := AddFunc(t.Context(), c, "", g, f)
	require.NoError(t, err)
	c.Start()
	defer func() { <-c.Stop().Done() }()
	return <-results
}

func TestOnPostgreSQL(t *testing.T) {
	db := dbtest.Engine{Driver: "postgres", DSN: dbtest.PostgresDSN()}.Open(t)
	l, j := lock.New(db), newJournal()
	noon := day(3, 1).Add(12 * time.Hour)

	t.Run("of many crons that fire a tick one runs it", func(t *testing.T) {
		for i := range 3 {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() { fires(t, l, j, noon.Add(time.Duration(i)*time.Minute), j.run) })
			}
			all.Wait()
		}
		require.Equal(t, map[string]int{"2000-03-01T12:00:00Z": 1, "2000-03-01T12:01:00Z": 1, "2000-03-01T12:02:00Z": 1}, j.runs)
	})
	t.Run("a holder that dies is replaced when its lock has expired", func(t *testing.T) {
		ctx, die := context.WithCancel(t.Context())
		lease, err := l.Acquire(ctx, lock.Job{ComponentName: "shop", JobName: "report", ComponentID: "dead",
			JobID: lock.Tick(noon.Add(time.Hour)), Once: true, MaxDuration: time.Hour})
		require.NoError(t, err)
		die()
		<-lease.Context().Done()
		r := fires(t, l, j, noon.Add(2*time.Hour), j.run)
		require.Equal(t, locktick.Held, r.Outcome, r.Err)
		_, err = db.Exec("UPDATE locks SET lock_time = lock_time - INTERVAL '2 hours'")
		require.NoError(t, err)
		r = fires(t, l, j, noon.Add(3*time.Hour), func(ctx context.Context) error {
			if lock.LeaseFrom(ctx).TakenFrom().ComponentID != "dead" {
				return errors.New("it was not taken over")
			}
			return nil
		})
		require.Equal(t, locktick.Ran, r.Outcome)
		require.NoError(t, r.Err)
	})
	t.Run("when the database is away nothing is run", func(t *testing.T) {
		require.NoError(t, db.Close())
		r := fires(t, l, j, noon.Add(4*time.Hour), func(context.Context) error { panic("it runs without the lock") })
		require.Equal(t, locktick.Failed, r.Outcome)
		require.ErrorContains(t, r.Err, "database is closed")
	})
}

func TestTheLoggerOfCronIsTold(t *testing.T) {
	var out bytes.Buffer
	for _, logger := range []cron.Logger{cron.PrintfLogger(log.New(&out, "quiet: ", 0)), cron.VerbosePrintfLogger(log.New(&out, "", 0))} {
		report := Report(logger)
		r := locktick.Result{ComponentName: "shop", JobName: "report", Tick: day(3, 1), Outcome: locktick.Ran}
		report(t.Context(), r)
		r.Outcome, r.Err = locktick.Held, errors.New("another has it")
		report(t.Context(), r)
		r.Outcome, r.Err = locktick.Failed, errors.New("the database is away")
		report(t.Context(), r)
	}
	require.Equal(t, `quiet: tick failed, error=the database is away, component=shop, job=report, tick=2000-03-01T00:00:00Z
tick ran, component=shop, job=report, tick=2000-03-01T00:00:00Z
tick held, component=shop, job=report, tick=2000-03-01T00:00:00Z, reason=another has it
tick failed, error=the database is away, component=shop, job=report, tick=2000-03-01T00:00:00Z
`, out.String())
}
