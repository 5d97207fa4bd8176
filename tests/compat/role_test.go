package compat_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// newRole creates a role that may create nothing in the database, and returns the place for it.
func newRole(t *testing.T, p place, admin *sql.DB) place {
	p.user = "role_" + p.database
	mustExec(t, admin, `CREATE ROLE `+p.user+` LOGIN`)
	mustExec(t, admin, `REVOKE CREATE ON SCHEMA public FROM PUBLIC`)
	return p
}

// TestNew_roleWithoutDDL: New's attempt to create the table fails, and everything works.
func TestNew_roleWithoutDDL(t *testing.T) {
	direct := newDatabase(t)
	admin := direct.open(t, "pgx")
	role := newRole(t, direct, admin)
	lock.New(admin)
	mustExec(t, admin, `GRANT SELECT, INSERT, UPDATE ON locks TO `+role.user)
	mustExec(t, admin,
		`ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO `+role.user) // the job's own
	_, err := role.open(t, "pgx").Exec(`CREATE TABLE IF NOT EXISTS locks ()`)
	require.ErrorContains(t, err, "permission denied for schema public")

	tryAll(t, stack{"", func(t *testing.T, p place) service { return plain(p.open(t, "pgx")) }}, role,
		direct)

	l, err := lock.NewWith(role.open(t, "postgres"), lock.Options{NoDDL: true})
	require.NoError(t, err)
	require.NoError(t, l.Lock("shop", "a", "NoDDL", "1", time.Hour))
}

// TestLock_Lock_missingPrivileges: the first call says it.
func TestLock_Lock_missingPrivileges(t *testing.T) {
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			direct := newDatabase(t)
			admin := direct.open(t, "pgx")
			db := newRole(t, direct, admin).open(t, driver)
			noDDL, err := lock.NewWith(db, lock.Options{NoDDL: true})
			require.NoError(t, err)
			call := func(l *lock.Lock) string {
				err := l.Lock("shop", "a", "job", "1", time.Hour)
				require.Error(t, err)
				t.Log(err)
				return err.Error()
			}
			l := lock.New(db)
			said := call(l)
			require.Contains(t, said, `relation "locks" does not exist`)
			require.Contains(t, said, `the table could not be created`)
			require.Contains(t, said, `permission denied for schema public`)
			said = call(noDDL)
			require.Contains(t, said, `relation "locks" does not exist`)
			require.Contains(t, said, `Options.NoDDL is set`)

			lock.New(admin)
			for _, right := range []string{"SELECT", "INSERT", "UPDATE"} {
				for _, l := range []*lock.Lock{l, noDDL} {
					require.Contains(t, call(l), `permission denied for table locks`, "before it may %s", right)
				}
				mustExec(t, admin, `GRANT `+right+` ON locks TO role_`+direct.database)
			}
			require.NoError(t, l.Lock("shop", "a", "job", "1", time.Hour), "as soon as it has its rights")
			require.NoError(t, noDDL.Unlock("shop", "a", "job", "1"))
		})
	}
}
