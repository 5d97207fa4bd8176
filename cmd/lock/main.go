//go:build unix && !aix && !solaris

// Command lock runs a command on one machine at a time, and shows and administers the locks of package lock: what flock,
// consul lock and etcdctl lock do, for a job on many machines, with the database that the team already has.
//
//	go run ./cmd/lock run --job hello -- echo hi
//
// The lock is held for as long as the command runs, however long that is, and a command that has lost its lock is ended
// before another machine can get it. Two processes see to that. The one that was started keeps the lease, passes on signals
// and ends the command when the lease is lost. The other, the guard, does nothing until the first is killed or stopped, and
// then kills the command.
//
// main.go has the flags that all commands share, run.go the run, child.go the processes of a command (child_linux.go those
// that hide), guard.go the guard, list.go and admin.go the other commands, db.go the database, say.go the messages, help.go the
// help, and exit.go the exit statuses.
package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

// callTimeout bounds what one look at the database, or one change, may take in all.
const callTimeout = 30 * time.Second

// An app is what the commands share: the flags of all of them, and where they write to.
type app struct {
	db, table, schema, log string
	noDDL, verbose         bool

	out  io.Writer
	says *speaker
}

func main() {
	a := &app{out: os.Stdout, says: &speaker{w: os.Stderr, color: colored(os.Stderr)}}
	cmd, err := a.root().ExecuteC()
	os.Exit(a.says.exit(err, cmd.CommandPath()))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lock",
		Short: "run a command on one machine at a time",
		Long: `A lock is a row of a table in the team's own database, PostgreSQL or CockroachDB, or in an SQLite file where there is one
machine. There is one lock for each job of a component.

"lock run" runs a command while it holds the lock of a job. The other commands show who holds what, switch jobs off and on, and
release the lock of a machine that is gone.`,
		Example: `lock run --job nightly-backup -- ./backup.sh --full
lock list
lock disable nightly-backup`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return a.says.configure(a.log, a.verbose)
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.db, "db", os.Getenv("LOCK_DB"), "where the locks are: postgres://user@host/database, cockroach://…, or the `path` of an SQLite file (default: $LOCK_DB, or else a file in the user's state folder)")
	f.Lookup("db").DefValue = "" // what is in LOCK_DB may hold a password, and is not for the help
	f.StringVar(&a.table, "table", "", "the `name` of the table (default locks)")
	f.StringVar(&a.schema, "schema", "", "the `name` of the table's schema (default: the first in the search path that has it)")
	f.BoolVar(&a.noDDL, "no-ddl", false, "never create the table")
	f.StringVar(&a.log, "log", "text", "the `format` of the messages on standard error: text or json, a line each")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "also tell what goes well")
	root.AddCommand(a.runCommand(), a.listCommand(), a.statusCommand(), a.switchCommand(true), a.switchCommand(false),
		a.releaseCommand(), a.initCommand(), a.versionCommand(), a.guardCommand())
	root.SetHelpFunc(a.help)
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, _, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	})
	return root
}

// componentFlag adds --component.
func componentFlag(cmd *cobra.Command, component *string) {
	cmd.Flags().StringVar(component, "component", cmp.Or(os.Getenv("LOCK_COMPONENT"), "default"), "the `name` of the component that the job belongs to ($LOCK_COMPONENT)")
}

func (a *app) options() lock.Options {
	return lock.Options{Table: a.table, Schema: a.schema, NoDDL: a.noDDL}
}

// connect opens the database. The caller calls done when it needs it no more.
func (a *app) connect(o lock.Options) (l *lock.Lock, done func(), err error) {
	t, err := parseTarget(a.db)
	if err != nil {
		return nil, nil, fail(exitUsage, err)
	}
	a.says.hide(t.secrets...)
	db, err := t.open()
	if err != nil {
		return nil, nil, fail(exitDatabase, err)
	}
	l, err = lock.NewWith(db, o)
	if err != nil {
		db.Close()
		return nil, nil, fail(exitUsage, err)
	}
	return l, func() { db.Close() }, nil
}

// ask connects, and calls f with the time that there is for it.
func (a *app) ask(f func(context.Context, *lock.Lock) error) error {
	l, done, err := a.connect(a.options())
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return f(ctx, l)
}

// completeJobs completes the name of a job from those that the table has.
func (a *app) completeJobs(component *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		err := a.ask(func(ctx context.Context, l *lock.Lock) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			all, err := l.List(ctx)
			for _, s := range all {
				if s.ComponentName == *component && strings.HasPrefix(s.JobName, begun) {
					names = append(names, s.JobName)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
