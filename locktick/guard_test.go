package locktick_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

var noon = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

// guard returns the Guard of an instance and the results that it reports.
func guard(l *lock.Lock) (locktick.Guard, *[]locktick.Result) {
	var told []locktick.Result
	return locktick.Guard{
		Lock:   l,
		Job:    lock.Job{ComponentName: "shop", JobName: "report", TTL: time.Hour},
		Report: func(_ context.Context, r locktick.Result) { told = append(told, r) },
	}, &told
}

func nothing(context.Context) error { return nil }

func TestGuard_Run_outcome(t *testing.T) {
	failure := errors.New("the printer is on fire")
	for name, test := range map[string]struct {
		before  func(t *testing.T, l *lock.Lock, g *locktick.Guard)
		f       func(context.Context) error
		outcome locktick.Outcome
		is      error
		says    string
		holder  string
	}{
		"it ran": {outcome: locktick.Ran},
		"it failed": {f: func(context.Context) error { return failure },
			outcome: locktick.Ran, is: failure},
		"it was refused a lock of its own": {f: func(context.Context) error {
			return new(lock.ErrUnauthorised)
		}, outcome: locktick.Ran, says: "refused"},
		"another has run it": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t, l.Lock("shop", "other", "report", ticktest.TickName(noon), time.Hour))
				require.NoError(t, l.Unlock("shop", "other", "report", ticktest.TickName(noon)))
			},
			outcome: locktick.AlreadyRun, says: "has been run already", holder: "other",
		},
		"another is running it": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t, l.Lock("shop", "other", "report", ticktest.TickName(noon), time.Hour))
			},
			outcome: locktick.Running, says: "is being run", holder: "other",
		},
		"another is running a later one": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t, l.Lock("shop", "other", "report", ticktest.TickName(noon.Add(time.Minute)),
					time.Hour))
			},
			outcome: locktick.Running, says: "is being run", holder: "other",
		},
		"another has run a later one": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				later := ticktest.TickName(noon.Add(time.Minute))
				require.NoError(t, l.Lock("shop", "other", "report", later, time.Hour))
				require.NoError(t, l.Unlock("shop", "other", "report", later))
			},
			outcome: locktick.AlreadyRun, says: "has been run already", holder: "other",
		},
		"another is at an earlier one": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t, l.Lock("shop", "other", "report", ticktest.TickName(noon.Add(-time.Minute)),
					time.Hour))
			},
			outcome: locktick.Held, says: "refused", holder: "other",
		},
		"this instance is running it, by the same ID": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				g.Job.ComponentID = "this"
				require.NoError(t, l.Lock("shop", "this", "report", ticktest.TickName(noon), time.Hour))
			},
			outcome: locktick.Running, says: "is being run", holder: "this",
		},
		"the clock of the instance is ahead": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				g.Lock = lock.NewMemory(lock.Options{Clock: func() time.Time {
					return noon.Add(-24 * time.Hour)
				}})
			},
			outcome: locktick.Ahead, says: "24h0m0s ahead of the database's clock",
		},
		"it is disabled": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t,
					l.Disable("shop", "report"))
			},
			outcome: locktick.Disabled, says: "disabled",
		},
		"there is no database": {
			before:  func(t *testing.T, l *lock.Lock, g *locktick.Guard) { g.Lock = lock.New(nil) },
			outcome: locktick.Failed, says: "no database",
		},
		"the job is wrong": {
			before:  func(t *testing.T, l *lock.Lock, g *locktick.Guard) { g.Job.TTL = -1 },
			outcome: locktick.Failed, says: "negative",
		},
		"the guard is the zero Guard": {
			before: func(t *testing.T, l *lock.Lock,
				g *locktick.Guard) {
				*g = locktick.Guard{Report: g.Report}
			},
			outcome: locktick.Failed, says: "no Lock",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := lock.NewMemory(lock.Options{})
			g, told := guard(l)
			if test.before != nil {
				test.before(t, l, &g)
			}
			ran := false
			r := g.Run(t.Context(), noon, func(ctx context.Context) error {
				ran = true
				require.Equal(t, ticktest.TickName(noon), lock.LeaseFrom(ctx).Job().JobID)
				if test.f != nil {
					return test.f(ctx)
				}
				return nil
			})
			require.Equal(t, test.outcome, r.Outcome, r.Err)
			require.Equal(t, test.outcome == locktick.Ran, ran)
			require.Equal(t, []locktick.Result{r}, *told)
			require.Equal(t, test.outcome == locktick.Ran && test.is == nil && test.says == "", r.Err == nil)
			if test.is != nil {
				require.ErrorIs(t, r.Err, test.is)
			}
			if test.says != "" {
				require.ErrorContains(t, r.Err, test.says)
			}
			holder, ok := r.Holder()
			require.Equal(t, test.holder != "", ok)
			require.Equal(t, test.holder, holder.ComponentID)
		})
	}
}

func TestGuard_Run_tick(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	g, _ := guard(lock.NewMemory(lock.Options{}))
	require.Equal(t, locktick.Ran, g.Run(t.Context(), noon, nothing).Outcome)
	require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), noon.In(berlin), nothing).Outcome)

	r := g.Run(t.Context(), noon.Add(time.Hour+time.Millisecond), nothing)
	require.Equal(t, locktick.Failed, r.Outcome)
	require.ErrorContains(t, r.Err, "not in whole seconds")
}

func TestGuard_Run_Spacing(t *testing.T) {
	l, clock := locktest.New()
	g, _ := guard(l)
	r := g.Run(t.Context(), time.Time{}, nothing)
	require.Equal(t, locktick.Failed, r.Outcome)
	require.ErrorContains(t, r.Err, "no Spacing")

	g.Job.Spacing = time.Minute
	require.Equal(t, locktick.Ran, g.Run(t.Context(), time.Time{}, nothing).Outcome)
	clock.Advance(time.Minute)
	require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), time.Time{}, nothing).Outcome)
	clock.Advance(time.Second)
	require.Equal(t, locktick.Ran, g.Run(t.Context(), time.Time{}, nothing).Outcome)
}

func TestGuard_Run_lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lock.NewMemory(lock.Options{})
		g, _ := guard(l)
		g.Job.TTL = time.Minute
		r := g.Run(t.Context(), time.Now(), func(ctx context.Context) error {
			s, err := l.Status(ctx, "shop", "report")
			require.NoError(t, err)
			require.NoError(t, l.ForceRelease(ctx, "shop", "report", s.Holder))
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.Equal(t, locktick.Ran, r.Outcome)
		require.ErrorIs(t, r.Err, lock.ErrLost)
	})
}

// sqlError is an error like those of PostgreSQL's drivers.
type sqlError string

func (e sqlError) Error() string    { return "canceling statement due to user request" }
func (e sqlError) SQLState() string { return string(e) }

func TestGuard_Run_shutdown(t *testing.T) {
	fire := errors.New("the printer is on fire")
	shutdown := errors.New("SIGTERM")
	for name, test := range map[string]struct {
		before  bool // the run
		returns func(ctx context.Context) error
		outcome locktick.Outcome
		is      error
	}{
		"before the run": {before: true, outcome: locktick.Stopped,
			is: context.Canceled},
		"the job returns the context's": {returns: context.Context.Err, outcome: locktick.Stopped,
			is: context.Canceled},
		"the job returns the cause": {returns: context.Cause, outcome: locktick.Stopped,
			is: shutdown},
		"the job returns that of a driver": {returns: func(context.Context) error {
			return sqlError("57014")
		}, outcome: locktick.Stopped, is: sqlError("57014")},
		"the job returns another's": {returns: func(context.Context) error {
			return sqlError("40001")
		}, outcome: locktick.Ran, is: sqlError("40001")},
		"the job fails": {returns: func(context.Context) error { return fire },
			outcome: locktick.Ran, is: fire},
		"the job succeeds": {returns: func(context.Context) error { return nil },
			outcome: locktick.Ran},
		"the job says that its lease is lost": {returns: func(context.Context) error {
			return lock.ErrLost
		}, outcome: locktick.Ran, is: lock.ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := guard(lock.NewMemory(lock.Options{}))
			g.Job.RetryFailed = true
			ctx, stop := context.WithCancelCause(t.Context())
			if test.before {
				stop(shutdown)
			}
			r := g.Run(ctx, noon, func(ctx context.Context) error {
				stop(shutdown)
				<-ctx.Done()
				return test.returns(ctx)
			})
			require.Equal(t, test.outcome, r.Outcome)
			require.ErrorIs(t, r.Err, test.is)
			if r.Err != nil {
				require.Equal(t, locktick.Ran, g.Run(t.Context(), noon, nothing).Outcome, "another may run it")
			}
		})
	}
	t.Run("a deadline is none", func(t *testing.T) {
		g, _ := guard(lock.NewMemory(lock.Options{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		r := g.Run(ctx, noon, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		require.NotEqual(t, locktick.Stopped, r.Outcome)
		require.ErrorIs(t, r.Err, context.DeadlineExceeded)
	})
}

func TestGuard_Run_panic(t *testing.T) {
	l := lock.NewMemory(lock.Options{})
	g, told := guard(l)
	require.PanicsWithValue(t, "oh", func() {
		g.Run(t.Context(), noon, func(context.Context) error { panic("oh") })
	})
	require.Empty(t, *told)
	s, err := l.Status(t.Context(), "shop", "report")
	require.NoError(t, err)
	require.False(t, s.Locked)
	require.Equal(t, locktick.Ran, g.Run(t.Context(), noon.Add(time.Minute), nothing).Outcome)
}

func TestGuard_Report_nil(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)

	l := lock.NewMemory(lock.Options{})
	g, _ := guard(l)
	g.Report = nil
	g.Run(t.Context(), noon, nothing)
	g.Run(t.Context(), noon, nothing)
	g.Run(t.Context(), noon.Add(time.Hour),
		func(context.Context) error { return errors.New("the printer is on fire") })
	require.NoError(t, l.Disable("shop", "report"))
	g.Run(t.Context(), noon.Add(2*time.Hour), nothing)
	g.Lock = lock.New(nil)
	g.Run(t.Context(), noon.Add(3*time.Hour), nothing)
	g.Lock = lock.NewMemory(lock.Options{})
	g.Run(t.Context(), noon.AddDate(100, 0, 0), nothing)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Run(ctx, noon.Add(5*time.Hour), nothing)

	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 7)
	for i, wanted := range []string{
		`level=DEBUG msg="tick ran" component=shop job=report tick=2026-03-29T12:00:00.000Z`,
		`level=DEBUG msg="tick already run" component=shop job=report ` +
			`tick=2026-03-29T12:00:00.000Z error=`,
		`level=ERROR msg="tick ran" component=shop job=report tick=2026-03-29T13:00:00.000Z ` +
			`error="the printer is on fire"`,
		`level=WARN msg="tick disabled" component=shop job=report tick=2026-03-29T14:00:00.000Z error=`,
		`level=ERROR msg="tick failed" component=shop job=report tick=2026-03-29T15:00:00.000Z error=`,
		`level=ERROR msg="tick ahead" component=shop job=report tick=2126-03-29T12:00:00.000Z error=`,
		`level=INFO msg="tick stopped" component=shop job=report tick=2026-03-29T17:00:00.000Z error=`,
	} {
		require.Contains(t, lines[i], wanted)
	}
}
