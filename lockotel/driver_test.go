package lockotel_test

import (
	"database/sql"
	"database/sql/driver"

	"modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
)

func init() {
	d := &sqlite.Driver{}
	d.MustRegisterScalarFunction("unixepoch", 1, func(_ *sqlite.FunctionContext,
		args []driver.Value) (driver.Value, error) {
		return observedtest.UnixEpoch(args)
	})
	sql.Register(observedtest.Driver, d)
}
