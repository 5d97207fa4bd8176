package tests

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

func TestLock(t *testing.T) { everywhere(t, dbtest.Specify) }

func TestLock_Lock_clockOfTheClient(t *testing.T) {
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
