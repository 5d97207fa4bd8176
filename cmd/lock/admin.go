//go:build unix && !aix && !solaris

package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

func (a *app) statusCommand() *cobra.Command {
	var (
		component string
		asJSON    bool
	)
	cmd := &cobra.Command{
		Use:   "status JOB [flags]",
		Short: "show the lock of a job",
		Long: `Shows whether the lock of a job is free or held, and by whom; whether the job is disabled; and who held the lock last. A job of
which the table knows nothing is free.`,
		Example: `lock status nightly-backup
lock status nightly-backup --component shop --json`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				s, err := l.Status(ctx, component, args[0])
				if err != nil {
					return judge(err)
				}
				words := statusWords(entryOf(s))
				if asJSON {
					words = jsonLine(entryOf(s))
				}
				_, err = fmt.Fprint(a.out, words)
				return fail(exitInternal, err)
			})
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitInternal)
	componentFlag(cmd, &component)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.ValidArgsFunction = a.completeJobs(&component)
	return cmd
}

func statusWords(e entry) string {
	state, _ := e.state()
	words := fmt.Sprintf("%s: %s\n", jobWords(e.Component, e.Job), state)
	if h := e.who(); h == nil {
		words += "last    nobody yet\n"
	} else {
		title := "holder"
		if !e.Held {
			title = "last  "
		}
		words += fmt.Sprintf("%s  %s\nrun     %s\nsince   %s, %s ago (taken, or last renewed)\n", title, visible(h.ComponentID),
			visible(h.JobID), h.Since.Format("2006-01-02 15:04:05Z07:00"), ageWords(h.age()))
	}
	return words
}

// switchCommand is lock enable or lock disable.
func (a *app) switchCommand(on bool) *cobra.Command {
	var component string
	cmd := &cobra.Command{
		Use:   "enable JOB [flags]",
		Short: "allow a job to be run again",
		Long:  `Ends what "lock disable" began. Nothing happens to a job that is enabled.`,
		Example: `lock enable nightly-backup
lock enable nightly-backup --component shop`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				set, words := l.DisableContext, "disabled"
				if on {
					set, words = l.EnableContext, "enabled"
				}
				if err := set(ctx, component, args[0]); err != nil {
					return judge(err)
				}
				name := jobWords(component, args[0])
				if s, err := l.Status(ctx, component, args[0]); err == nil && entryOf(s).who() == nil {
					a.says.warn(fmt.Sprintf("%s: %s; no such job has been run yet (lock list shows those that have)", name, words))
					return nil
				}
				a.says.info(fmt.Sprintf("%s: %s", name, words))
				return nil
			})
		},
	}
	if !on {
		cmd.Use = "disable JOB [flags]"
		cmd.Short = "keep a job from being run"
		cmd.Long = fmt.Sprintf(`Until "lock enable", every "lock run" of the job is refused, with exit status %d, on all machines. A run that has begun goes on,
unless it was started with --stop-when-disabled.`, exitDisabled)
		cmd.Example = `lock disable nightly-backup
lock disable nightly-backup --component shop`
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase)
	componentFlag(cmd, &component)
	cmd.ValidArgsFunction = a.completeJobs(&component)
	return cmd
}

func (a *app) releaseCommand() *cobra.Command {
	var component, holderID, runID string
	cmd := &cobra.Command{
		Use:   "release JOB --holder ID [flags]",
		Short: "release the lock of a machine that is gone",
		Long: `Releases the lock of a job in the place of its holder, so that nobody has to wait until it expires. It is released only if the
holder is the one that --holder names, as "lock status" shows it; so that of whoever has taken it meanwhile stays.

A holder that is alive is not stopped at once: its lock run notices when it next renews its lock, ends its command, and until then
both run. To stop a job, see "lock disable" and --stop-when-disabled.`,
		Example: `lock status nightly-backup
lock release nightly-backup --holder db3/4711/QX7RS2LB`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			if holderID == "" {
				return usagef("--holder says whose lock is to be released (lock status shows it)")
			}
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				s, err := l.Status(ctx, component, args[0])
				if err != nil {
					return judge(err)
				}
				name := jobWords(component, args[0])
				switch {
				case !s.Locked:
					a.says.warn(fmt.Sprintf("%s: nobody holds it", name))
					return nil
				case s.Holder.ComponentID != holderID || runID != "" && s.Holder.JobID != runID:
					return fail(exitHeld, fmt.Errorf("refused: %s is held by %s", name, holderWords(s.Holder)))
				}
				// The holder may change here; the library compares again.
				if err := l.ForceRelease(ctx, component, args[0], s.Holder); err != nil {
					return judge(err)
				}
				a.says.warn(fmt.Sprintf("%s: released; it was held by %s", name, holderWords(s.Holder)))
				return nil
			})
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitHeld)
	componentFlag(cmd, &component)
	cmd.Flags().StringVar(&holderID, "holder", "", "the `ID` of the holder whose lock is to be released (required)")
	cmd.Flags().StringVar(&runID, "run", "", "and the `ID` of its run")
	cmd.ValidArgsFunction = a.completeJobs(&component)
	return cmd
}

func (a *app) initCommand() *cobra.Command {
	var apply bool
	cmd := &cobra.Command{
		Use:   "init [flags]",
		Short: "print or apply the statement that creates the table",
		Long: `Prints the statement that creates the table, for whoever has the right to; with --apply it is carried out. Nothing happens to
a table that is there. The other commands create the table by themselves where they may, unless told --no-ddl.

They need the rights to SELECT, INSERT and UPDATE. A schema has to be there already.`,
		Example: `lock init --db postgres:// | psql
lock init --apply
psql -c 'GRANT SELECT, INSERT, UPDATE ON locks TO the_service'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			t, err := a.target()
			if err != nil {
				return err
			}
			ddl, err := a.ddl(t)
			if err != nil {
				return err
			}
			if !apply {
				_, err := fmt.Fprintln(a.out, ddl+";")
				return fail(exitInternal, err)
			}
			db, err := t.open()
			if err != nil {
				return fail(exitDatabase, err)
			}
			defer db.Close()
			ctx, cancel := within(context.Background(), callTimeout)
			defer cancel()
			if _, err := db.ExecContext(ctx, ddl); err != nil {
				return fail(exitDatabase, err)
			}
			// There may have been another table of this name.
			l, err := lock.NewWith(db, lock.Options{Table: a.table, Schema: a.schema, NoDDL: true})
			if err == nil {
				_, err = l.List(ctx)
			}
			if err == nil {
				a.says.info("the table is there")
			}
			return judge(err)
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase)
	cmd.Flags().BoolVar(&apply, "apply", false, "carry the statement out")
	return cmd
}

// ddl is the statement with which the library creates the table.
func (a *app) ddl(t target) (string, error) {
	var r recorder
	s := lock.Storage(&r)
	if t.server == nil {
		db, err := sql.Open("sqlite", "")
		if err != nil {
			return "", err
		}
		defer db.Close()
		s = fileRecorder{&r, db.Driver()}
	}
	if _, err := lock.NewWith(s, lock.Options{Table: a.table, Schema: a.schema}); err != nil {
		return "", fail(exitUsage, err)
	}
	return r.text, nil
}

// A recorder is a Storage that remembers what it is told.
type recorder struct{ text string }

func (r *recorder) Exec(query string, _ ...interface{}) (sql.Result, error) {
	r.text = query
	return driver.ResultNoRows, nil
}

func (r *recorder) QueryRow(string, ...interface{}) *sql.Row { return nil }

// A fileRecorder is one that the library takes for SQLite, by its driver.
type fileRecorder struct {
	*recorder
	driver driver.Driver
}

func (r fileRecorder) Driver() driver.Driver { return r.driver }

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "print the completion for a shell: bash, zsh or fish",
		Long:  `Prints a script with which the shell completes commands, flags, and the names of the jobs that the table has.`,
		Example: `# bash, which needs the package bash-completion for it
lock completion bash >/etc/bash_completion.d/lock

# zsh
lock completion zsh >"${fpath[1]}/_lock"

# fish
lock completion fish >~/.config/fish/completions/lock.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return errors.New("for which shell? bash, zsh or fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			print := func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }
			switch args[0] {
			case "zsh":
				print = root.GenZshCompletion
			case "fish":
				print = func(w io.Writer) error { return root.GenFishCompletion(w, true) }
			}
			return fail(exitInternal, print(a.out))
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "show which release this is",
		Long:    "Shows the release, the revision it was built from if that is known, the release of Go, and the system.",
		Example: "lock version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, versionWords())
			return fail(exitInternal, err)
		},
	}
}

func versionWords() string {
	words := []string{"lock"}
	info, ok := debug.ReadBuildInfo()
	if ok {
		words = append(words, info.Main.Version)
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && !strings.Contains(info.Main.Version, s.Value[:min(12, len(s.Value))]) {
				words = append(words, s.Value)
			}
		}
	}
	return strings.Join(append(words, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH), " ")
}
