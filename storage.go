package lock

import (
	"database/sql"
	"embed"
	"io/fs"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Storage is the part of a database that a [Lock] needs. *sql.DB and *sql.Tx are Storages, and so
// are types that wrap them.
//
// A Storage that can also commit and roll back, such as *sql.Tx, is the caller's transaction. In
// it, a Lock creates no table and retries nothing. A nil error means that the database has
// confirmed the answer against the present row. If the snapshot of the transaction is older, the
// error is the database's serialization error.
type Storage interface {
	Exec(query string, args ...interface{}) (sql.Result, error)
	QueryRow(query string, args ...interface{}) *sql.Row
}

//go:embed sql
var files embed.FS

var dialects = func() *store.Dialects {
	folder, err := fs.Sub(files, "sql")
	if err != nil {
		panic(err)
	}
	return store.ReadDialects(folder)
}()
