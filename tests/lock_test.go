package tests

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

func TestSpecification(t *testing.T) { everywhere(t, dbtest.TestSpecification) }

func TestTheHolderIsToldSinceWhen(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: time.Hour})
		var refusal *lock.ErrUnauthorised
		require.ErrorAs(t, l.Lock(component, "a", job, "1", 0), &refusal)
		since := tb.Get(component, job).LockTime.Time
		require.Equal(t, since, refusal.Holder().Since)
		require.GreaterOrEqual(t, refusal.Holder().Age, time.Hour)
		require.LessOrEqual(t, refusal.Holder().Age, tb.Now().Sub(since))
		require.ErrorContains(t, refusal, since.Format(time.RFC3339Nano))
	})
}

func TestNamesAndIDsAreData(t *testing.T) {
	texts := map[string]string{
		"empty":   "",
		"quotes":  `'"` + "`" + `'; DROP TABLE locks; --`,
		"lines":   "a\r\n\tb\x01\x7f",
		"emoji":   "🔒\u0301é\u202e",
		"percent": "%s%_$1?1\\",
		"100 kB":  strings.Repeat("0123456789", 10_000),
	}
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		for name, text := range texts {
			t.Run(name, func(t *testing.T) {
				require.NoError(t, l.Lock(text, text+"a", text, text+"1", time.Hour))
				require.Equal(t, dbtest.Row{ComponentID: text + "a", JobID: text + "1", Enabled: true, Status: "LOCKED"}, tb.Get(text, text).Fields())
				var refusal *lock.ErrUnauthorised
				require.ErrorAs(t, l.Lock(text, text+"b", text, text+"2", time.Hour), &refusal)
				require.Equal(t, []string{text + "a", text + "1"}, []string{refusal.Holder().ComponentID, refusal.Holder().JobID})
				require.Less(t, len(refusal.Error()), 3000, "a message is for reading")
				require.NoError(t, l.Disable(text, text))
				require.IsType(t, &lock.ErrDisabled{}, l.Lock(text, text+"a", text, text+"1", time.Hour))
				require.NoError(t, l.Enable(text, text))
				require.NoError(t, l.Unlock(text, text+"a", text, text+"1"))
			})
		}
	})
}

func TestEachAcquisitionIsLaterThanTheOneBefore(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		last := dbtest.LongPast
		acquired := func(jobID string, max time.Duration) {
			t.Helper()
			require.NoError(t, l.Lock(component, "a", job, jobID, max))
			now := tb.Get(component, job).LockTime.Time
			require.True(t, now.After(last), "%v is not after %v", now, last)
			last = now
		}
		for range 50 {
			acquired("1", 0)
			require.NoError(t, l.Unlock(component, "a", job, "1"))
		}
		// The clock has been an hour ahead and has been put right.
		tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "UNLOCKED", Age: -time.Hour})
		last = tb.Get(component, job).LockTime.Time
		for range 3 {
			acquired("1", 0)
			require.NoError(t, l.Unlock(component, "a", job, "1"))
		}
		// Takeovers, as fast as the clock allows.
		tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: time.Hour})
		last = tb.Get(component, job).LockTime.Time
		acquired("1", time.Minute)
	})
}

func TestTheClockOfTheClientDoesNotMatter(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lock.New(tb.DB)
		for _, age := range []time.Duration{time.Second, time.Hour} {
			tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: age})
			// In the bubble it is the year 2000, for the client and its driver.
			synctest.Test(t, func(t *testing.T) {
				require.Equal(t, 2000, time.Now().Year())
				l := lock.New(e.OpenDSN(t, tb.DSN))
				asked := tb.Now()
				err := l.Lock(component, "a", job, "1", time.Minute)
				if age < time.Minute {
					dbtest.RefusedBy("b", "2")(t, err)
				} else {
					dbtest.Granted(t, err)
					dbtest.Taken(t, nil, tb.Get(component, job), asked, tb.Now())
				}
			})
		}
	})
}
