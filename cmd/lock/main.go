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
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
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
		Version:       versionWords(),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.says.configure(a.log, a.verbose); err != nil {
				return err
			}
			return noneEmpty(cmd)
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	f := root.PersistentFlags()
	f.StringVar(&a.db, "db", os.Getenv("LOCK_DB"), "where the locks are: postgres://user@host/database, cockroach://…, or the `path` of an SQLite file (default: $LOCK_DB, or else a file in the user's state folder)")
	f.Lookup("db").DefValue = "" // what is in LOCK_DB may hold a password, and is not for the help
	f.StringVar(&a.table, "table", "", "the `name` of the table (default locks)")
	f.StringVar(&a.schema, "schema", "", "the `name` of the table's schema (default: the first in the search path that has it)")
	f.BoolVar(&a.noDDL, "no-ddl", false, "never create the table")
	f.StringVar(&a.log, "log", "text", "the `format` of the messages on standard error: text or json, a line each")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "also tell what goes well")
	root.AddCommand(a.runCommand(), a.listCommand(), a.statusCommand(), a.switchCommand(true), a.switchCommand(false),
		a.releaseCommand(), a.initCommand(), a.completionCommand(), a.versionCommand(), a.guardCommand())
	root.RegisterFlagCompletionFunc("log", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.SetHelpFunc(a.help)
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(cmd.Root(), rest[0])
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	})
	return root
}

// unknownCommand is the error for a command that there is not.
func unknownCommand(root *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %s", echo(name))
	if like := root.SuggestionsFor(name); len(like) > 0 {
		err = fmt.Errorf("%w: is it %s?", err, strings.Join(like, " or "))
	}
	return err
}

// noneEmpty refuses flags that are there and say nothing: they come from a variable that is not set, or a command that has
// failed, and to go on without a tick or a database would run the job everywhere.
func noneEmpty(cmd *cobra.Command) error {
	for _, name := range []string{"db", "table", "schema", "component", "component-id", "job", "job-id", "tick", "holder", "run"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usagef("--%s is there, but empty", name)
		}
	}
	return nil
}

// noArgs is for a command that has only flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s is too much: %s has only flags", echo(args[0]), cmd.CommandPath())
	}
	return nil
}

// echo quotes an argument that is out of place, unless it looks like the address of a database.
func echo(arg string) string {
	if strings.ContainsAny(arg, ":@=") {
		return "(the address of a database? It belongs to --db)"
	}
	return strconv.Quote(arg)
}

// oneJob is for a command about a job.
func oneJob(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || args[0] == "":
		return errors.New("which job? Its name is missing")
	case len(args) > 1:
		return fmt.Errorf("it is about one job, not %d", len(args))
	}
	return nil
}

// componentFlag adds --component.
func componentFlag(cmd *cobra.Command, component *string) {
	cmd.Flags().StringVar(component, "component", cmp.Or(os.Getenv("LOCK_COMPONENT"), "default"), "the `name` of the component that the job belongs to ($LOCK_COMPONENT)")
}

func (a *app) options() lock.Options {
	return lock.Options{Table: a.table, Schema: a.schema, NoDDL: a.noDDL}
}

// target reads which database it is about. From then on, the messages name it and keep its secrets.
func (a *app) target() (target, error) {
	t, err := parseTarget(a.db)
	if err != nil {
		return t, fail(exitUsage, err)
	}
	a.says.hide(t.secrets...)
	a.says.file = t.file
	return t, nil
}

// connect opens the database within ctx. The caller calls done when it needs it no more.
func (a *app) connect(ctx context.Context, o lock.Options) (l *lock.Lock, done func(), err error) {
	t, err := a.target()
	if err != nil {
		return nil, nil, err
	}
	db, err := t.open()
	if err != nil {
		return nil, nil, fail(exitDatabase, err)
	}
	made := make(chan error, 1)
	var ready *lock.Lock
	go func() {
		var err error
		ready, err = lock.NewWith(db, o) // it creates the table, for which a server may take any time
		made <- err
	}()
	select {
	case err := <-made:
		if err != nil {
			db.Close()
			return nil, nil, fail(exitUsage, err)
		}
		return ready, func() { db.Close() }, nil
	case <-ctx.Done():
		return nil, nil, fail(exitDatabase, context.Cause(ctx))
	}
}

// within is a context that lasts so long.
func within(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, most, fmt.Errorf("no answer within %v", most))
}

// ask connects, and calls f with the time that there is for it.
func (a *app) ask(f func(context.Context, *lock.Lock) error) error {
	return a.askWithin(callTimeout, f)
}

func (a *app) askWithin(most time.Duration, f func(context.Context, *lock.Lock) error) error {
	ctx, cancel := within(context.Background(), most)
	defer cancel()
	l, done, err := a.connect(ctx, a.options())
	if err != nil {
		return err
	}
	defer done()
	return f(ctx, l)
}

// completeJobs completes the name of a job from those that the table has.
func (a *app) completeJobs(component *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		err := a.askWithin(5*time.Second, func(ctx context.Context, l *lock.Lock) error {
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
