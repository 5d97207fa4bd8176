package tests

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

const challengers = 32

// rounds is how often each race is run on each engine.
func rounds() int {
	if testing.Short() {
		return 5
	}
	return 20
}

// TestLock_Lock_oneWins races challengers on connections of their own, and at times
// a rival that does something else to the row at the same moment.
func TestLock_Lock_oneWins(t *testing.T) {
	const (
		oneWinner = iota
		atMostOne
	)
	races := []struct {
		name  string
		given dbtest.Row // row{} is none
		rival func(l *lock.Lock) error
		want  int
		// previous is a holder that a loser may rightly name beside the winner.
		previous   lock.Holder
		mayDisable bool
	}{
		{name: "free lock", given: dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true,
			Status: "UNLOCKED", Age: time.Minute}, want: oneWinner},
		{name: "missing row", want: oneWinner},
		{name: "expired lock", given: dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true,
			Status: "LOCKED", Age: 2 * time.Hour}, want: oneWinner},
		{name: "lock being released", given: dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true,
			Status: "LOCKED", Age: time.Minute}, want: atMostOne,
			rival:    func(l *lock.Lock) error { return l.Unlock(component, "b", job, "2") },
			previous: lock.Holder{ComponentID: "b", JobID: "2"}},
		{name: "lock being disabled", given: dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true,
			Status: "UNLOCKED", Age: time.Minute}, want: atMostOne,
			rival:      func(l *lock.Lock) error { return l.Disable(component, job) },
			mayDisable: true},
	}
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		l := all.Lock()
		for _, race := range races {
			t.Run(race.name, func(t *testing.T) {
				tb := all.With(t)
				won := 0
				for range rounds() {
					tb.Remove()
					if race.given != (dbtest.Row{}) {
						tb.Put(race.given)
					}
					errs := make([]error, challengers)
					var rivalErr error
					together(challengers+1, func(i int) {
						if i < challengers {
							errs[i] = l.Lock(component, instance(i), job, "run", time.Hour)
						} else if race.rival != nil {
							rivalErr = race.rival(l)
						}
					})
					require.NoError(t, rivalErr)

					winner := ""
					for i, err := range errs {
						if err == nil {
							require.Empty(t, winner, "%s has won too", instance(i))
							winner = instance(i)
						}
					}
					if winner != "" {
						won++
						require.Equal(t, dbtest.Row{ComponentID: winner, JobID: "run", Enabled: !race.mayDisable,
							Status: "LOCKED"}, tb.Get(component, job).Fields())
					} else {
						require.Equal(t, atMostOne, race.want, "nobody has won: %v", errs)
						require.Equal(t, "UNLOCKED", tb.Get(component, job).Status.String)
					}
					for _, err := range errs {
						switch err := err.(type) {
						case nil:
						case *lock.ErrUnauthorised:
							holder := lock.Holder{ComponentID: err.Holder().ComponentID, JobID: err.Holder().JobID}
							require.Contains(t, []lock.Holder{{ComponentID: winner, JobID: "run"}, race.previous},
								holder)
							require.NotEmpty(t, holder.ComponentID)
						case *lock.ErrDisabled:
							require.True(t, race.mayDisable, err)
						default:
							require.NoError(t, err)
						}
					}
				}
				t.Logf("%d of %d rounds had a winner", won, rounds())
			})
		}
	})
}

func instance(i int) string { return fmt.Sprintf("instance-%d", i) }

// together calls f(0) to f(n-1) at the same moment, and returns when all have.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}
