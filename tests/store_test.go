package tests

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// TestTable_Renew_expired: a term whose TTL has passed, by the database's clock, is not renewed,
// whatever its holder believes.
func TestTable_Renew_expired(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		table := store.NewTable(tb.DB, store.Config{Dialects: store.ReadDialects(os.DirFS("../sql")),
			Dialect: string(e.Dialect()), Table: "locks"})
		r := store.Request{ComponentName: component, ComponentID: "a", JobName: job, JobID: "1"}
		for ttl, want := range map[time.Duration]bool{30 * time.Second: false, time.Hour: true} {
			tb.Put(ours) // a minute ago
			rec, err := table.Get(t.Context(), r)
			require.NoError(t, err)
			res, err := table.Renew(t.Context(), r, store.Term{First: rec.LockTime, Last: rec.LockTime,
				TTL: ttl})
			require.NoError(t, err)
			require.Equal(t, want, res.Done, ttl)
		}
	})
}
