//go:build unix && !aix && !solaris

// Command lock runs a command on one machine at a time, and shows and administers the locks of
// package lock, in the database that the team already has.
//
//	go run ./cmd/lock run --db local --job hello -- echo hi
//
// The lock is held while the command runs. A command that has lost its lock is ended before
// another machine can acquire it. Two processes see to that. The first keeps the lease, passes on
// signals and ends the command when the lease is lost. The second, the guard, kills the command
// if the first is killed or stopped.
//
// What ends a command never waits for a terminal, a pipe, a log or an observer: messages go
// through an outbox (outbox.go), orders to the guard don't block (guard.go), and signals are sent
// before they are reported (watch.go). signals.go has the table of signals.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

// An app has the flags of all commands, and their outputs.
type app struct {
	db, table, schema, log string
	noDDL, verbose         bool

	out  io.Writer
	says *speaker
}

func main() {
	errors := newOutbox(os.Stderr)
	a := &app{out: os.Stdout, says: &speaker{w: errors, color: colored(os.Stderr)}}
	cmd, err := a.root().ExecuteC()
	code := a.says.exit(err, cmd.CommandPath())
	errors.flush(flushTimeout)
	os.Exit(code)
}

// whereHelp is the help of --db.
const whereHelp = "where the locks are: postgres://user@host/database, cockroach://…, " +
	"the `path` of an SQLite file, or local, which is a file of this user on this machine " +
	"(default $LOCK_DB)"

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lock",
		Short: "run a command on one machine at a time",
		Long: `A lock is a row of a table in the team's own database, PostgreSQL or CockroachDB, or
in an SQLite file on one machine. Each job of a component has one lock.

"lock run" runs a command while it holds the lock of a job. The other commands show the holders,
disable and enable jobs, and release the lock of a machine that is gone.`,
		Example: `export LOCK_DB=postgres://ops@db.example/ops
lock run --job nightly-backup -- ./backup.sh --full
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
	f.StringVar(&a.db, "db", os.Getenv("LOCK_DB"), whereHelp)
	f.Lookup("db").DefValue = "" // LOCK_DB may hold a password, which is not for the help
	f.StringVar(&a.table, "table", "", "the `name` of the table (default locks)")
	f.StringVar(&a.schema, "schema", "",
		"the `name` of the table's schema (default: the first in the search path that has it)")
	f.BoolVar(&a.noDDL, "no-ddl", false, "never create the table")
	f.StringVar(&a.log, "log", "text",
		"the `format` of the messages on standard error: text or json, a line each")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "also report successes")
	root.AddCommand(a.runCommand(), a.listCommand(), a.statusCommand(), a.switchCommand(true),
		a.switchCommand(false), a.releaseCommand(), a.forgetCommand(), a.initCommand(),
		a.completionCommand(), a.versionCommand(), a.guardCommand())
	root.RegisterFlagCompletionFunc("log", fixed("text", "json"))
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

// unknownCommand is the error for a command that does not exist.
func unknownCommand(root *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %s", echo(name))
	if like := root.SuggestionsFor(name); len(like) > 0 {
		err = fmt.Errorf("%w: is it %s?", err, strings.Join(like, " or "))
	}
	return err
}

func (a *app) options() lock.Options {
	return lock.Options{Table: a.table, Schema: a.schema, NoDDL: a.noDDL}
}
