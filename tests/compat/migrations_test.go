package compat_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	migratecockroach "github.com/golang-migrate/migrate/v4/database/cockroachdb"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	migratesqlite "github.com/golang-migrate/migrate/v4/database/sqlite"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// postgresShape describes each column of the table, and its primary key.
const postgresShape = `SELECT column_name || ' ' || data_type || ' ' || udt_name
	|| ' ' || is_nullable
	|| ' ' || coalesce(column_default, '')
	|| ' ' || coalesce(character_maximum_length::text, '') || ' ' || coalesce(collation_name, '')
FROM (SELECT * FROM information_schema.columns WHERE table_name = 'locks'
	ORDER BY ordinal_position) AS c
UNION ALL SELECT 'primary key ' || column_name
FROM (SELECT * FROM information_schema.key_column_usage WHERE table_name = 'locks'
	ORDER BY ordinal_position) AS k`

// engines are the databases for which there are migrations.
var engines = []struct {
	name    string
	folder  string // in those of goose and golang-migrate
	open    func(t *testing.T) *sql.DB
	shape   string
	dialect goose.Dialect
	migrate func(db *sql.DB) (database.Driver, error)
}{
	{
		name:    "PostgreSQL",
		open:    func(t *testing.T) *sql.DB { return newDatabase(t).open(t, "pgx") },
		shape:   postgresShape,
		dialect: goose.DialectPostgres,
		migrate: func(db *sql.DB) (database.Driver, error) {
			return migratepgx.WithInstance(db,
				&migratepgx.Config{})
		},
	},
	{
		name:    "CockroachDB",
		open:    openCockroach,
		shape:   postgresShape,
		dialect: goose.DialectPostgres,
		migrate: func(db *sql.DB) (database.Driver, error) {
			return migratecockroach.WithInstance(db, &migratecockroach.Config{})
		},
	},
	{
		name:   "SQLite",
		folder: "sqlite",
		open: func(t *testing.T) *sql.DB {
			db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(),
				"locks.db")+"?_pragma=busy_timeout(10000)")
			require.NoError(t, err)
			return keep(t, db)
		},
		shape: `SELECT concat_ws(' ', name, type, "notnull", dflt_value, 'primary key', pk)
FROM pragma_table_info('locks')`,
		dialect: goose.DialectSQLite3,
		migrate: func(db *sql.DB) (database.Driver, error) {
			return migratesqlite.WithInstance(db, &migratesqlite.Config{})
		},
	},
}

func openCockroach(t *testing.T) *sql.DB {
	db, err := sql.Open("pgx", dbtest.CockroachDSN(t))
	require.NoError(t, err)
	return keep(t, db)
}

// TestNew_migrations: up and down, with the tools themselves.
func TestNew_migrations(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			made := e.open(t)
			lock.New(made)
			want := shape(t, made, e.shape)
			require.NotEmpty(t, want)
			for name, steps := range map[string]func(t *testing.T, db *sql.DB) (up, down func() error){
				"goose": func(t *testing.T, db *sql.DB) (up, down func() error) {
					p, err := goose.NewProvider(e.dialect, db,
						os.DirFS(filepath.Join("../../docs/migrations/goose", e.folder)))
					require.NoError(t, err)
					up = func() error {
						_, err := p.Up(patient(t))
						return err
					}
					down = func() error {
						_, err := p.Down(patient(t))
						return err
					}
					return up, down
				},
				"golang-migrate": func(t *testing.T, db *sql.DB) (up, down func() error) {
					files, err := iofs.New(os.DirFS(filepath.Join("../../docs/migrations/golang-migrate",
						e.folder)), ".")
					require.NoError(t, err)
					driver, err := e.migrate(db)
					require.NoError(t, err)
					m, err := migrate.NewWithInstance("iofs", files, e.name, driver)
					require.NoError(t, err)
					t.Cleanup(func() {
						sourceErr, err := m.Close()
						require.NoError(t, errors.Join(sourceErr, err))
					})
					return m.Up, m.Down
				},
			} {
				t.Run(name, func(t *testing.T) {
					db := e.open(t)
					up, down := steps(t, db)
					require.Empty(t, shape(t, db, e.shape))
					err := up()
					if err != nil && strings.Contains(err.Error(), `at or near "generated"`) {
						t.Skip("CockroachDB 21.1 lacks the identity columns of the tool's own table")
					}
					require.NoError(t, err)
					require.Equal(t, want, shape(t, db, e.shape))

					l, err := lock.NewWith(db, lock.Options{NoDDL: true})
					require.NoError(t, err)
					require.NoError(t, l.Lock("shop", "a", "job", "1", time.Hour))
					refusedBy(t, l.Lock("shop", "b", "job", "2", time.Hour), "a", "1")

					require.NoError(t, down())
					require.Empty(t, shape(t, db, e.shape))

					// If New has created the table already, the migration succeeds and keeps the
					// locks.
					require.NoError(t, lock.New(db).Lock("shop", "a", "job", "1", time.Hour))
					require.NoError(t, up())
					refusedBy(t, l.Lock("shop", "b", "job", "2", time.Hour), "a", "1")
				})
			}
		})
	}
}

func shape(t *testing.T, db *sql.DB, query string) (lines []string) {
	rows, err := db.Query(query)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		lines = append(lines, line)
	}
	require.NoError(t, rows.Err())
	return lines
}
