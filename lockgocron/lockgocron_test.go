package lockgocron_test

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// A skewedClock is the clock of an instance, ahead of the bubble's.
type skewedClock struct {
	clockwork.Clock
	ahead atomic.Int64
}

func newSkewedClock(ahead time.Duration) *skewedClock {
	c := &skewedClock{Clock: clockwork.NewRealClock()}
	c.ahead.Store(int64(ahead))
	return c
}

func (c *skewedClock) Now() time.Time { return c.Clock.Now().Add(time.Duration(c.ahead.Load())) }

// A fleet has the runs and outcomes of its instances.
type fleet struct{ *ticktest.Fleet }

func newFleet(l *lock.Lock) fleet { return fleet{ticktest.NewFleet(l)} }

// locker returns the Locker of an instance.
func (f fleet) locker(t *testing.T, s locktick.Schedule, now func() time.Time,
	change ...func(g *locktick.Guard)) *lockgocron.Locker {
	guard := f.Guard(0)
	guard.Job.JobName, guard.Now = "", now
	for _, c := range change {
		c(&guard)
	}
	l, err := lockgocron.NewLocker(guard)
	require.NoError(t, err)
	if s != nil {
		require.NoError(t, l.Schedule("report", s))
	}
	return l
}

// scheduler starts a scheduler with a job called report.
func scheduler(t *testing.T, clock clockwork.Clock, definition gocron.JobDefinition, task any,
	options ...gocron.SchedulerOption) gocron.Scheduler {
	s, err := gocron.NewScheduler(append(options, gocron.WithClock(clock),
		gocron.WithLocation(time.UTC))...)
	require.NoError(t, err)
	_, err = s.NewJob(definition, gocron.NewTask(task), gocron.WithName("report"))
	require.NoError(t, err)
	s.Start()
	return s
}

func crontab(t *testing.T, c string) locktick.Schedule {
	s, err := lockgocron.Crontab(c, true, time.UTC)
	require.NoError(t, err)
	return s
}
