package lockprom_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/lockprom"
)

func TestNewTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := observedtest.Open(t)
		l := db.Observed(t, nil)
		c := lockprom.NewTable(l, 0)
		require.NoError(t, l.Lock("shop", "a", "backup", "1", 0))
		require.NoError(t, l.Lock("shop", "a", "report", "1", 0))
		require.NoError(t, l.Unlock("shop", "a", "report", "1"))
		require.NoError(t, l.Disable("shop", "a job that never ran"))
		require.NoError(t, l.Enable("shop", "?"))
		_, err := db.Exec(`UPDATE locks SET job_name = CAST(x'ff' AS TEXT) WHERE job_name = '?'`)
		require.NoError(t, err)
		time.Sleep(90 * time.Second)
		require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(`
# HELP lock_table_age_seconds Time since the lock was acquired or renewed, by the database's clock.
# TYPE lock_table_age_seconds gauge
lock_table_age_seconds{lock_component="shop",lock_job="backup"} 90
lock_table_age_seconds{lock_component="shop",lock_job="report"} 90
# HELP lock_table_enabled Whether the job is enabled (1) or not (0).
# TYPE lock_table_enabled gauge
lock_table_enabled{lock_component="shop",lock_job="a job that never ran"} 0
lock_table_enabled{lock_component="shop",lock_job="backup"} 1
lock_table_enabled{lock_component="shop",lock_job="report"} 1
lock_table_enabled{lock_component="shop",lock_job="`+"\uFFFD"+`"} 1
# HELP lock_table_held Whether the lock is held by anybody (1) or not (0).
# TYPE lock_table_held gauge
lock_table_held{lock_component="shop",lock_job="a job that never ran"} 0
lock_table_held{lock_component="shop",lock_job="backup"} 1
lock_table_held{lock_component="shop",lock_job="report"} 0
lock_table_held{lock_component="shop",lock_job="`+"\uFFFD"+`"} 0
# HELP lock_table_up Whether the table could be listed (1) or not (0).
# TYPE lock_table_up gauge
lock_table_up 1
`)))
	})
}

const down = `
# HELP lock_table_up Whether the table could be listed (1) or not (0).
# TYPE lock_table_up gauge
lock_table_up 0
`

func TestNewTable_away(t *testing.T) {
	db := observedtest.Open(t)
	require.NoError(t, db.DB.Close())
	require.NoError(t, testutil.CollectAndCompare(lockprom.NewTable(db.Observed(t, nil), 0),
		strings.NewReader(down)))
}

func TestNewTable_timeout(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{time.Second: time.Second,
		0: 5 * time.Second, -1: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			db := observedtest.Open(t)
			db.Hung.Store(true)
			l, err := lock.NewWith(db, lock.Options{NoDDL: true})
			require.NoError(t, err)
			begun := time.Now()
			require.NoError(t, testutil.CollectAndCompare(lockprom.NewTable(l, given),
				strings.NewReader(down)))
			require.Equal(t, want, time.Since(begun))
		})
	}
}
