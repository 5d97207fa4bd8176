package lockhttp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// A slow is a database that takes its time, and counts who asks.
type slow struct {
	takes time.Duration
	err   error
	looks atomic.Int64
}

// rows is a source of which nothing is wrong.
type rows func(context.Context) iter.Seq2[lock.Status, error]

func (r rows) All(ctx context.Context) iter.Seq2[lock.Status, error] { return r(ctx) }
func (r rows) CheckTable(context.Context) error                      { return nil }

func (s *slow) all(ctx context.Context) iter.Seq2[lock.Status, error] {
	return func(yield func(lock.Status, error) bool) {
		n := s.looks.Add(1)
		select {
		case <-time.After(s.takes):
			if yield(lock.Status{JobName: fmt.Sprint(n)}, nil) && s.err != nil {
				yield(lock.Status{}, s.err)
			}
		case <-ctx.Done():
			yield(lock.Status{}, ctx.Err())
		}
	}
}

func (s *slow) table() *table { return newTable(rows(s.all), Options{Events: new(Events)}) }

func TestTable_look(t *testing.T) {
	t.Run("one look is for all who ask while it is fresh", func(t *testing.T) {
		for _, c := range []struct {
			takes, fresh time.Duration
			err          error
		}{
			{0, time.Second, nil},
			{100 * time.Millisecond, time.Second, nil},
			{3 * time.Second, 12 * time.Second, nil}, // a fifth of the time is spent reading
			{3 * time.Second, time.Second, errors.New("away")},
		} {
			synctest.Test(t, func(t *testing.T) {
				db := &slow{takes: c.takes, err: c.err}
				table := db.table()
				eight := func() {
					var pages sync.WaitGroup
					for range 8 {
						pages.Go(func() { require.Equal(t, c.err, table.look(t.Context()).err) })
					}
					pages.Wait()
				}
				eight()
				require.EqualValues(t, 1, db.looks.Load(), "of eight pages at once, one looks")
				time.Sleep(c.fresh - time.Nanosecond)
				eight()
				require.EqualValues(t, 1, db.looks.Load())
				time.Sleep(time.Nanosecond)
				eight()
				require.EqualValues(t, 2, db.looks.Load())
				time.Sleep(time.Hour)
				require.EqualValues(t, 2, db.looks.Load(), "nobody looks for nobody")
			})
		}
	})

	t.Run("it goes on for others when its page is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db := &slow{takes: time.Second}
			table := db.table()
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			require.NoError(t, table.look(ctx).err)
			require.Equal(t, "1", table.look(t.Context()).locks[0].Job)
			require.EqualValues(t, 1, db.looks.Load())
		})
	})

	t.Run("a closed page does not wait for the look of another", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			table := (&slow{takes: time.Second}).table()
			go table.look(t.Context())
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			require.ErrorIs(t, table.look(ctx).err, context.DeadlineExceeded)
			time.Sleep(time.Second)
		})
	})

	t.Run("one that hangs is given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			table := (&slow{takes: time.Hour}).table()
			start := time.Now()
			require.ErrorIs(t, table.look(t.Context()).err, context.DeadlineExceeded)
			require.Equal(t, lookTimeout, time.Since(start))
		})
	})

	// Only the page that asked such a Storage hangs with it; the others show what is known.
	t.Run("a Storage that knows no contexts and hangs is not waited for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stuck := make(chan struct{})
			answers := true
			table := newTable(rows(func(context.Context) iter.Seq2[lock.Status, error] {
				return func(yield func(lock.Status, error) bool) {
					if !answers {
						<-stuck
					}
					yield(lock.Status{JobName: "known"}, nil)
				}
			}), Options{Events: new(Events)})
			table.look(t.Context())
			answers = false
			time.Sleep(freshFor)
			go table.look(t.Context())
			synctest.Wait()
			start := time.Now()
			v := table.look(t.Context())
			require.ErrorContains(t, v.err, "has not answered for 5s")
			require.Equal(t, "known", v.locks[0].Job)
			require.Equal(t, lookTimeout, time.Since(start))
			close(stuck)
		})
	})

	t.Run("a change is seen by who looks after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			table := (&slow{takes: 100 * time.Millisecond}).table()
			table.look(t.Context())
			table.forget()
			require.Equal(t, "2", table.look(t.Context()).locks[0].Job)

			time.Sleep(freshFor)
			go table.look(t.Context())
			synctest.Wait()
			table.forget() // the third has begun, and may not have seen the change
			require.Equal(t, "4", table.look(t.Context()).locks[0].Job)
		})
	})
}

// A wrong is a source whose table is found to be wrong, as often as it is checked.
type wrong struct {
	rows
	checks int
}

func (w *wrong) CheckTable(context.Context) error {
	w.checks++
	return fmt.Errorf("finding %d", w.checks)
}

func TestTable_look_checks_the_table(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &wrong{rows: (&slow{}).all}
		table := newTable(db, Options{Events: new(Events)})
		for range 60 {
			require.EqualError(t, table.look(t.Context()).problem, "finding 1")
			time.Sleep(time.Second)
		}
		require.EqualError(t, table.look(t.Context()).problem, "finding 2", "a minute later")
	})
}

// However large the table is, a look keeps no more than its limits, and reads no more.
func TestTable_look_bounded(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	few := mostText / len(long)
	for name, c := range map[string]struct {
		row  lock.Status
		want int
	}{
		"by rows":            {lock.Status{JobName: "job"}, mostRead},
		"by component names": {lock.Status{ComponentName: long}, few},
		"by job names":       {lock.Status{JobName: long}, few},
		"by component IDs":   {lock.Status{Holder: lock.Holder{ComponentID: long}}, few},
		"by job IDs":         {lock.Status{Holder: lock.Holder{JobID: long}}, few},
	} {
		t.Run(name, func(t *testing.T) {
			read, cancelled := 0, false
			v := newTable(rows(func(ctx context.Context) iter.Seq2[lock.Status, error] {
				return func(yield func(lock.Status, error) bool) {
					for range 200_000 {
						read++
						if !yield(c.row, nil) {
							cancelled = ctx.Err() != nil
							return
						}
					}
				}
			}), Options{Events: new(Events)}).look(t.Context())
			require.NoError(t, v.err)
			require.True(t, v.more)
			require.Len(t, v.locks, c.want)
			require.Equal(t, c.want, v.counts["all"])
			require.Equal(t, c.want+1, read)
			require.True(t, cancelled, "or a driver would read the rest to throw it away")
		})
	}
}

func TestEvents_bounded(t *testing.T) {
	var events Events
	observe := func(job string) {
		events.Observe(t.Context(), lock.Event{Kind: lock.TakenOver, JobName: job, TTL: time.Hour})
	}
	for i := range mostFacts + 10 {
		observe(fmt.Sprint(i))
	}
	observe(strings.Repeat("x", longestText+1))
	require.Len(t, events.facts, mostFacts)
	require.Len(t, events.changes(), mostChanges)
	require.Equal(t, fmt.Sprint(mostFacts+9), events.changes()[0].Job, "the latest are kept")
	require.Equal(t, time.Hour, events.known(name{job: fmt.Sprint(mostFacts + 9)}).ttl)

	events = Events{}
	for i := range mostFacts {
		n := fmt.Sprint(i)
		events.Observe(t.Context(), lock.Event{Kind: lock.Acquired, JobName: n, Operation: "Lock"})
	}
	require.Empty(t, events.facts, "nothing is known of these")
}

func TestCut(t *testing.T) {
	require.Equal(t, "short", cut("short"))
	require.Equal(t, strings.Repeat("é", 500)+"…", cut(strings.Repeat("é", 501)))
}
