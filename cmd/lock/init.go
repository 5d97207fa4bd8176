//go:build unix && !aix && !solaris

package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

func (a *app) initCommand() *cobra.Command {
	var apply, check bool
	cmd := &cobra.Command{
		Use:   "init [flags]",
		Short: "print or apply the statement that creates the table, or check the table",
		Long: `Prints the statement that creates the table, for somebody who has the right to
execute it. With --apply, executes it and checks the table. A table that exists is not changed. The
other commands create the table if it is missing and they have the right to, unless --no-ddl is
given.

With --check, creates nothing, and prints what is wrong with the table, the server or the session, a
line each, and what to do: types of columns, the key, the precision of lock_time, row-level
security, the encoding, a second table of the name, missing privileges.

The commands need the rights to SELECT, INSERT and UPDATE; "lock forget" needs DELETE. The schema
must exist.`,
		Example: `lock init --db postgres:// | psql
lock init --apply
lock init --check
psql -c 'GRANT SELECT, INSERT, UPDATE ON locks TO the_service'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			t, err := a.target()
			if err != nil {
				return err
			}
			if apply || check {
				return a.checkTable(t, apply)
			}
			ddl, err := a.ddl(t)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, ddl+";")
			return fail(exitInternal, err)
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase)
	cmd.Flags().BoolVar(&apply, "apply", false, "execute the statement, and check the table")
	cmd.Flags().BoolVar(&check, "check", false, "report what is wrong with the table")
	cmd.MarkFlagsMutuallyExclusive("apply", "check")
	return cmd
}

// checkTable creates the table, if asked to, and reports what is wrong with it.
func (a *app) checkTable(t target, create bool) error {
	ddl, err := a.ddl(t)
	if err != nil {
		return err
	}
	db, err := t.open()
	if err != nil {
		return fail(exitDatabase, err)
	}
	defer closeSoon(db)
	ctx, cancel := within(context.Background(), callTimeout)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		return explain(ctx, fail(exitDatabase, err))
	}
	if create {
		if _, err := db.ExecContext(ctx, ddl); err != nil {
			return explain(ctx, fail(exitDatabase, err))
		}
	}
	l, err := lock.NewWith(db, lock.Options{Table: a.table, Schema: a.schema, NoDDL: true})
	if err != nil {
		return fail(exitUsage, err)
	}
	if err := l.CheckTable(ctx); err != nil {
		if ctx.Err() != nil {
			return explain(ctx, fail(exitDatabase, err))
		}
		words := strings.TrimPrefix(err.Error(), "lock: CheckTable: ")
		for problem := range strings.SplitSeq(words, "\n") {
			a.says.fault("the table: " + problem)
		}
		return &failure{code: exitDatabase}
	}
	a.says.info("the table is correct")
	return nil
}

// ddl is the statement with which the library creates the table.
func (a *app) ddl(t target) (string, error) {
	var r recorder
	dialect := lock.PostgreSQL
	if t.server == nil {
		dialect = lock.SQLite
	}
	o := lock.Options{Table: a.table, Schema: a.schema, Dialect: dialect}
	if _, err := lock.NewWith(&r, o); err != nil {
		return "", fail(exitUsage, err)
	}
	if r.text == "" {
		return "", fail(exitInternal, errors.New("there is no statement"))
	}
	return strings.TrimSuffix(strings.TrimSpace(r.text), ";"), nil
}

// A recorder is a Storage that records the statement.
type recorder struct{ text string }

func (r *recorder) Exec(query string, _ ...interface{}) (sql.Result, error) {
	r.text = query
	return driver.ResultNoRows, nil
}

func (r *recorder) QueryRow(string, ...interface{}) *sql.Row { return nil }
