package lockhttp

import (
	"context"
	"errors"
	"fmt"
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

func (s *slow) list(ctx context.Context) ([]lock.Status, error) {
	n := s.looks.Add(1)
	select {
	case <-time.After(s.takes):
		return []lock.Status{{JobName: fmt.Sprint(n)}}, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestOneLookIsForAllWhoAskWithinASecond(t *testing.T) {
	for _, err := range []error{nil, errors.New("away")} {
		synctest.Test(t, func(t *testing.T) {
			db := &slow{takes: 3 * time.Second, err: err}
			table := newTable(db.list)
			all := func() {
				var pages sync.WaitGroup
				for range 100 {
					pages.Go(func() { require.Equal(t, err, table.look(t.Context()).err) })
				}
				pages.Wait()
			}
			all()
			require.EqualValues(t, 1, db.looks.Load(), "of a hundred pages at once, one looks")
			time.Sleep(time.Second - time.Nanosecond)
			all()
			require.EqualValues(t, 1, db.looks.Load())
			time.Sleep(time.Nanosecond)
			all()
			require.EqualValues(t, 2, db.looks.Load())
			time.Sleep(time.Hour)
			require.EqualValues(t, 2, db.looks.Load(), "nobody looks for nobody")
		})
	}
}

func TestALookGoesOnForOthersWhenItsPageIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &slow{takes: time.Second}
		table := newTable(db.list)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.NoError(t, table.look(ctx).err)
		require.Equal(t, "1", table.look(t.Context()).locks[0].JobName)
		require.EqualValues(t, 1, db.looks.Load())
	})
}

func TestAClosedPageDoesNotWaitForTheLookOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable((&slow{takes: time.Second}).list)
		go table.look(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, table.look(ctx).err, context.DeadlineExceeded)
		time.Sleep(time.Second)
	})
}

func TestALookThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable((&slow{takes: time.Hour}).list)
		start := time.Now()
		require.ErrorIs(t, table.look(t.Context()).err, context.DeadlineExceeded)
		require.Equal(t, lookTimeout, time.Since(start))
	})
}

// A Storage that knows no contexts may hang for ever. Only the page that asked it hangs with it; the others show what is known.
func TestAStorageThatHangsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		answers := true
		table := newTable(func(context.Context) ([]lock.Status, error) {
			if !answers {
				<-stuck
			}
			return []lock.Status{{JobName: "known"}}, nil
		})
		table.look(t.Context())
		answers = false
		time.Sleep(freshFor)
		go table.look(t.Context())
		synctest.Wait()
		start := time.Now()
		v := table.look(t.Context())
		require.ErrorContains(t, v.err, "has not answered for 5s")
		require.Equal(t, "known", v.locks[0].JobName)
		require.Equal(t, lookTimeout, time.Since(start))
		close(stuck)
	})
}

func TestAChangeIsSeenByWhoLooksAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &slow{takes: 100 * time.Millisecond}
		table := newTable(db.list)
		table.look(t.Context())
		table.forget()
		require.Equal(t, "2", table.look(t.Context()).locks[0].JobName)

		time.Sleep(freshFor)
		go table.look(t.Context())
		synctest.Wait()
		table.forget() // the third has begun, and may not have seen the change
		require.Equal(t, "4", table.look(t.Context()).locks[0].JobName)
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var events Events
	for i := range mostDurations + 10 {
		events.Observe(t.Context(), lock.Event{Kind: lock.TakenOver, JobName: fmt.Sprint(i), MaxDuration: time.Hour})
	}
	require.Len(t, events.durations, mostDurations)
	require.Len(t, events.takeovers, mostChanges)
	noticed := []handover{{name: name{job: "another"}, at: time.Now()}}
	require.Len(t, merge(events.seen(), noticed), mostChanges)
	require.Equal(t, "another", merge(events.seen(), noticed)[0].job, "the latest are kept")
	require.Equal(t, time.Hour, events.maxDuration(name{job: fmt.Sprint(mostDurations + 9)}))
}
