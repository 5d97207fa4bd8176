package lock_test

import (
	"os"
	"testing"

	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// The component and the job of the specification.
const (
	component = dbtest.Component
	job       = dbtest.Job
)

var engines = dbtest.PostgreSQL // module tests has more

// onEveryEngine runs a test for each available database.
func onEveryEngine(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	for _, e := range engines {
		t.Run(e.Name, func(t *testing.T) { test(t, e) })
	}
}

// everywhere runs a test for each available database, and in memory.
func everywhere(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	t.Run("memory", func(t *testing.T) { test(t, dbtest.Memory) })
	onEveryEngine(t, test)
}

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }
