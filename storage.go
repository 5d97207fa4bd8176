package lock

import (
	"database/sql"
	"embed"
	"io/fs"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Storage is the database, as much of it as a [Lock] needs. *sql.DB and *sql.Tx are Storages, and
// so is what wraps them.
//
// A Storage that can also commit and roll back, as *sql.Tx can, is a transaction of the caller's:
// a Lock creates no table in it and retries nothing in it. There nil means that the database has
// confirmed the answer against the present row; if the snapshot of the transaction is older, the
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
