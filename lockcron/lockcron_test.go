package lockcron

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// A skewed schedule is the schedule of an instance whose clock is ahead, for a cron whose clock
// is right: cron has no clock to set. It fires when the instance's clock reaches the tick.
type skewed struct {
	cron.Schedule
	ahead time.Duration
}

func (s skewed) Next(t time.Time) time.Time { return s.Schedule.Next(t.Add(s.ahead)).Add(-s.ahead) }

var withSeconds = cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month |
	cron.Dow | cron.Descriptor)

func parse(t *testing.T, spec string) cron.Schedule {
	s, err := withSeconds.Parse(spec)
	require.NoError(t, err)
	return s
}

func TestNew_clocks(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	few := []time.Duration{0, 3 * time.Second, -4 * time.Second}
	for name, test := range map[string]struct {
		spec     string
		location *time.Location
		from     time.Time
		to       time.Time
		takes    time.Duration
		wait     time.Duration
		skews    []time.Duration
	}{
		"every minute": {"0 * * * * *", time.UTC, day(3, 1),
			day(3, 1).Add(time.Hour), time.Second, 0, ticktest.Skews},
		"several within what clocks differ": {"* * * * * *", time.UTC, day(3, 1),
			day(3, 1).Add(time.Minute), 100 * time.Millisecond, 900 * time.Millisecond,
			ticktest.Skews},
		"runs that outlive the TTL": {"0 */10 * * * *", time.UTC, day(3, 1),
			day(3, 1).Add(3 * time.Hour), 9 * time.Minute, 0, ticktest.Skews},
		"one a day ahead, one a day behind": {"0 */10 * * * *", time.UTC, day(3, 1), day(3, 5),
			time.Second, 0, append(few, 24*time.Hour, -24*time.Hour)},
		"hourly, when summer begins": {"0 0 * * * *", berlin, day(3, 25), day(3, 27), time.Second,
			0, few},
		"hourly, when summer ends": {"0 0 * * * *", berlin, day(10, 28), day(10, 30),
			time.Second, 0, few},
		"daily in the hour that is twice": {"0 30 2 * * *", berlin, day(10, 27), day(11, 1),
			time.Second, 0, few},
		"a spec with a time zone": {"CRON_TZ=Asia/Kolkata 0 0 6 * * *", berlin, day(3, 24),
			day(3, 29), time.Second, 0, few},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(test.from.Add(-time.Minute)))
				f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
				for _, ahead := range test.skews {
					c := cron.New(cron.WithLocation(test.location), cron.WithLogger(cron.DiscardLogger))
					g := f.Guard(ahead)
					g.Job.Wait = test.wait
					job, err := New(t.Context(), g, parse(t, test.spec), func(ctx context.Context) error {
						defer time.Sleep(test.takes)
						return f.Run(ctx)
					})
					require.NoError(t, err)
					c.Schedule(skewed{job, ahead}, job)
					c.Start()
					defer func() { <-c.Stop().Done() }()
				}
				time.Sleep(time.Until(test.to.Add(-5 * time.Second)))
				synctest.Wait()

				f.RequireEachOnce(t, parse(t, test.spec), test.from.In(test.location),
					test.to.Add(-20*time.Second))
				require.Positive(t, f.Told()[locktick.AlreadyRun]+f.Told()[locktick.Running])
				require.Equal(t, slices.Max(test.skews) > time.Minute, f.Told()[locktick.Ahead] > 0)
			})
		})
	}
}

// A daily job at 02:30 is run once on each day, also on the one that has no 02:30.
func TestNew_summer_begins(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for spec, location := range map[string]*time.Location{"0 30 2 * * *": berlin,
		"CRON_TZ=Europe/Berlin 0 30 2 * * *": time.UTC} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(day(3, 25)))
			f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
			var at []string
			for range 3 {
				c := cron.New(cron.WithLocation(location), cron.WithLogger(cron.DiscardLogger))
				job, err := New(t.Context(), f.Guard(0), parse(t, spec), func(context.Context) error {
					at = append(at, time.Now().In(berlin).Format("02 15:04"))
					return nil
				})
				require.NoError(t, err)
				c.Schedule(job, job)
				c.Start()
				defer func() { <-c.Stop().Done() }()
			}
			time.Sleep(3 * 24 * time.Hour)
			synctest.Wait()
			require.Equal(t, []string{"25 02:30", "26 03:30", "27 02:30"}, at)
		})
	}
}

// day is one of the year 2000, in which the bubbles of package synctest begin.
func day(month time.Month, d int) time.Time {
	return time.Date(2000, month, d, 0, 0, 0, 0,
		time.UTC)
}

func TestNew_every(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
		_, err := New(t.Context(), f.Guard(0), parse(t, "@every 1h"), f.Run)
		require.ErrorContains(t, err, "begins when the process starts")

		begin := time.Now()
		var runs []time.Duration
		for range 4 { // begin ten minutes after the other
			g := f.Guard(0)
			g.Job.Spacing = 55 * time.Minute
			c := cron.New(cron.WithLogger(cron.DiscardLogger))
			job, err := New(t.Context(), g, parse(t, "@every 1h"), func(context.Context) error {
				runs = append(runs, time.Since(begin))
				return nil
			})
			require.NoError(t, err)
			c.Schedule(job, job)
			c.Start()
			defer func() { <-c.Stop().Done() }()
			time.Sleep(10 * time.Minute)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}, runs)
	})
}

func TestNew_error(t *testing.T) {
	_, err := New(t.Context(), locktick.Guard{}, parse(t, "@hourly"), nil)
	require.ErrorContains(t, err, "no Lock")
	_, err = New(t.Context(), ticktest.NewFleet(lock.NewMemory(lock.Options{})).Guard(0), nil, nil)
	require.ErrorContains(t, err, "no schedule")
}

// Cron fires the entry by the schedule itself, and so the Job isn't told which tick it is.
func TestJob_Run_other_schedule(t *testing.T) {
	f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
	hourly := parse(t, "@hourly")
	job, err := New(t.Context(), f.Guard(0), hourly,
		func(context.Context) error { panic("it runs") })
	require.NoError(t, err)
	job.Run()
	require.Equal(t, map[locktick.Outcome]int{locktick.Failed: 1}, f.Told())
	require.ErrorContains(t, f.Errs()[0], "is the Job the schedule of its entry")
}

func TestJob_Run_lost_and_panic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
		var out bytes.Buffer
		logger := cron.PrintfLogger(log.New(&out, "", 0))
		c := cron.New(cron.WithLogger(logger), cron.WithChain(cron.Recover(logger)))
		lost := make(chan error, 1)
		job, err := New(t.Context(), f.Guard(0), parse(t, "0 * * * * *"),
			func(ctx context.Context) error {
				if s, err := f.Lock.Status(ctx, "shop", "report"); err == nil && len(lost) == 0 {
					f.Lock.ForceRelease(ctx, "shop", "report", s.Holder)
					<-ctx.Done()
					lost <- context.Cause(ctx)
					return nil
				}
				panic("the printer is on fire")
			})
		require.NoError(t, err)
		c.Schedule(job, job)
		c.Start()
		time.Sleep(2*time.Minute + time.Second)
		<-c.Stop().Done()
		require.ErrorIs(t, <-lost, lock.ErrLost)
		require.Contains(t, out.String(), "the printer is on fire")
		s, err := f.Lock.Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.False(t, s.Locked)
	})
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	for _, logger := range []cron.Logger{cron.PrintfLogger(log.New(&out, "quiet: ", 0)),
		cron.VerbosePrintfLogger(log.New(&out, "", 0))} {
		report := Report(logger)
		r := locktick.Result{ComponentName: "shop", JobName: "report", Tick: day(3, 1),
			Outcome: locktick.Ran}
		report(t.Context(), r)
		r.Outcome, r.Err = locktick.Held, errors.New("another has it")
		report(t.Context(), r)
		r.Outcome, r.Err = locktick.Failed, errors.New("the database is away")
		report(t.Context(), r)
		r.Outcome, r.Err = locktick.Ahead, errors.New("a day")
		report(t.Context(), r)
	}
	require.Equal(t, "quiet: tick failed, error=the database is away, component=shop, job=report, "+
		`tick=2000-03-01T00:00:00Z
quiet: tick ahead, error=a day, component=shop, job=report, tick=2000-03-01T00:00:00Z
tick ran, component=shop, job=report, tick=2000-03-01T00:00:00Z
tick held, component=shop, job=report, tick=2000-03-01T00:00:00Z, reason=another has it
tick failed, error=the database is away, component=shop, job=report, tick=2000-03-01T00:00:00Z
tick ahead, error=a day, component=shop, job=report, tick=2000-03-01T00:00:00Z
`, out.String())
}
