//go:build unix && !aix && !solaris

package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

// callTimeout limits one read or change of the database, connecting included, so that a database
// that doesn't answer is an error within ten seconds.
const callTimeout = 9 * time.Second

// target parses the database's address. Afterwards, messages name the database and hide its
// secrets.
func (a *app) target() (target, error) {
	t, err := parseTarget(a.db)
	if err != nil {
		return t, fail(exitUsage, err)
	}
	a.says.hide(t.secrets...)
	a.says.about(t.name)
	return t, nil
}

// connect opens the database within ctx. The caller calls done when it no longer needs it.
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
		ready, err = lock.NewWith(db, o) // creates the table, which may take long
		made <- err
	}()
	select {
	case err := <-made:
		if err != nil {
			db.Close()
			return nil, nil, fail(exitUsage, err)
		}
		return ready, func() { closeSoon(db) }, nil
	case <-ctx.Done():
		return nil, nil, fail(exitDatabase, context.Cause(ctx))
	}
}

// closeSoon closes a database, unless the driver hangs.
func closeSoon(db *sql.DB) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		db.Close()
	}()
	select {
	case <-closed:
	case <-time.After(time.Second):
	}
}

// within returns a context that ends after most.
func within(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, most, fmt.Errorf("no answer within %v", most))
}

// ask connects and calls f within callTimeout.
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
	return explain(ctx, judge(f(ctx, l)))
}

// explain adds the time limit to an error that it has caused.
func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && isCode(err, exitDatabase) {
		return &failure{exitDatabase, fmt.Errorf("%w: %w", context.Cause(ctx), err)}
	}
	return err
}

// completeJobs completes the names of the jobs in the table.
func (a *app) completeJobs(component *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string,
		cobra.ShellCompDirective) {
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
