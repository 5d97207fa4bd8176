package lock_test

import (
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// The documented API, symbol by symbol: this compiles while none of it has changed.
var (
	_ func(lock.Storage) *lock.Lock = lock.New
	_ func(*lock.Lock, string,
		string) error = (*lock.Lock).Disable
	_ func(*lock.Lock, string, string) error                                = (*lock.Lock).Enable
	_ func(*lock.Lock, string, string, string, string, time.Duration) error = (*lock.Lock).Lock
	_ func(*lock.Lock, string, string, string, string) error                = (*lock.Lock).Unlock
	_ func() *lock.LocalLock                                                = lock.NewLocalLock
	_ func(*lock.LocalLock) error                                           = (*lock.LocalLock).Lock
	_ func(*lock.LocalLock) error                                           = (*lock.LocalLock).Unlock
	_ func(*lock.NoopLocker, string,
		string) error = (*lock.NoopLocker).Disable
	_ func(*lock.NoopLocker, string,
		string) error = (*lock.NoopLocker).Enable
	_ func(*lock.NoopLocker, string, string, string, string,
		time.Duration) error = (*lock.NoopLocker).Lock
	_ func(*lock.NoopLocker, string, string, string,
		string) error = (*lock.NoopLocker).Unlock
	_ func(*lock.ErrDisabled) string     = (*lock.ErrDisabled).Error
	_ func(*lock.ErrUnauthorised) string = (*lock.ErrUnauthorised).Error
	_                                    = struct{}(lock.NoopLocker{})

	_ error = &lock.ErrDisabled{}
	_ error = &lock.ErrUnauthorised{}

	// Exactly these two methods, or types that have them would no longer fit.
	_ lock.Storage = interface {
		Exec(query string, args ...interface{}) (sql.Result, error)
		QueryRow(query string, args ...interface{}) *sql.Row
	}(nil)
	_ lock.Storage = (*sql.DB)(nil)
	_ lock.Storage = (*sql.Tx)(nil)
	_ lock.Storage = struct{ *sql.DB }{}
	_ lock.Storage = dbtest.ConnStorage{}
)

func TestLock(t *testing.T) { everywhere(t, dbtest.Specify) }

func TestLock_Lock_whatNoDatabaseCanHold(t *testing.T) {
	l := lock.New(dbtest.Storage{
		OnExec: func(query string) error {
			require.Contains(t, query, "CREATE TABLE", "only New asks anything")
			return nil
		},
		OnQueryRow: func(query string) *sql.Row { t.Errorf("asked: %s", query); return nil },
	})
	for _, bad := range []struct{ text, says string }{
		{"a\x00b", "NUL at byte 1"},
		{"a\xffb", "not valid UTF-8"},
	} {
		for what, call := range map[string]func() error{
			"component name": func() error { return l.Lock(bad.text, "a", "j", "1", 0) },
			"component ID":   func() error { return l.Lock("c", bad.text, "j", "1", 0) },
			"job name":       func() error { return l.Unlock("c", "a", bad.text, "1") },
			"job ID":         func() error { return l.Unlock("c", "a", "j", bad.text) },
		} {
			require.ErrorContains(t, call(), what)
			require.ErrorContains(t, call(), bad.says)
		}
		require.ErrorContains(t, l.Enable(bad.text, "j"), "component name")
		require.ErrorContains(t, l.Disable("c", bad.text), "job name")
	}
}

// TestNew_table: programs written for the package of 2018 read the table with SELECT * into seven
// variables. No column is ever added or moved.
func TestNew_table(t *testing.T) {
	want, err := os.ReadFile("testdata/locks.sql")
	require.NoError(t, err)
	var sent []string
	lock.New(dbtest.Storage{OnExec: func(query string) error {
		sent = append(sent,
			query+"\n")
		return nil
	}})
	require.Equal(t, []string{string(want)}, sent)
}
