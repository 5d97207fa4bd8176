//go:build unix && !aix && !solaris

// Command race lets several processes compete for one job through package lock, kills the one that holds the lock in the
// middle of its work, and proves that no two ever ran at once.
//
//	go run ./examples/race
//
// The processes are instances of one component. The job is real work: the SHA-256 of the files of a folder, written to a
// manifest. The locks are in an SQLite file, or with -db in any PostgreSQL or CockroachDB.
//
// The proof doesn't trust the lock. Every process writes what it does to a journal, in single appends, so that the order
// of its lines is the order of events; and while it works it holds an flock as a witness, which the kernel grants to one
// process at a time and takes back from a killed one. In the end the journal is checked, see [check].
//
// main.go has the flags, race.go directs the processes, worker.go is what each of them does and uses the library, journal.go
// is the proof, printer.go the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const usage = `Usage: race [flags]

Several processes compete for one job, the checksums of the files of a folder, through
package lock. The holder of the lock is killed at work and another takes over. A journal
and a witness that don't depend on the lock prove that no two ran at once.

  -db URL        keep the lock in this PostgreSQL or CockroachDB, for instance
                 postgres://user@host/database (default: an SQLite file). The rows of this
                 run are deleted at the end; the table locks stays.
  -dir DIR       checksum the files of this folder, which is only read (default: some files
                 that are made for the purpose)
  -instances N   how many processes, %d to %d (default %d)
  -max DURATION  the longest that a run may take: when the holder is dead, another takes over
                 after that time; %v or more (default %v)
  -noop          use the library's NoopLocker, which lets everybody in, to see the proof fail

Everything else is in a temporary folder that is deleted at the end. The exit status is 0 if
the proof holds, 1 if two ran at once or another claim fails, 2 if the race could not be run.
`

const (
	fewest, usual, most = 2, 5, 64
	shortestMax         = time.Second // below, the margin for a process that a busy machine makes wait is too small
	usualMax            = 2 * time.Second
)

type options struct {
	db        string
	dir       string
	instances int
	max       time.Duration
	noop      bool
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("race", flag.ContinueOnError)
	f.SetOutput(io.Discard) // main prints the error
	f.StringVar(&o.db, "db", "", "")
	f.StringVar(&o.dir, "dir", "", "")
	f.IntVar(&o.instances, "instances", usual, "")
	f.DurationVar(&o.max, "max", usualMax, "")
	f.BoolVar(&o.noop, "noop", false, "")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%q is not a flag", f.Arg(0))
	case o.instances < fewest || o.instances > most:
		return o, fmt.Errorf("-instances %d: it has to be %d to %d", o.instances, fewest, most)
	case o.max < shortestMax:
		return o, fmt.Errorf("-max %v: it has to be %v or more", o.max, shortestMax)
	}
	return o, nil
}

// database says where the locks are kept: for sql.Open, and in words that hold no password.
func (o options) database(folder string) (driver, dsn, words string, err error) {
	if o.db == "" {
		file := url.URL{Scheme: "file", Path: filepath.Join(folder, "locks.db"),
			RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"}
		return "sqlite", file.String(), "an SQLite file", nil
	}
	u, err := url.Parse(o.db)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// Neither the value nor what Parse says about it is repeated: there may be a password in them.
		return "", "", "", errors.New("-db is not a URL like postgres://user:password@host:port/database (special characters in a password are written as %40 and so on)")
	}
	shown := url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: u.Path} // a query can hold a password too
	return "pgx", o.db, shown.Redacted(), nil
}

func main() {
	if os.Getenv(workerVariable) != "" {
		signal.Ignore(os.Interrupt, syscall.SIGHUP) // a terminal sends them to all; the parent sees to it
		if err := work(os.Stdin, os.Stdout); err != nil {
			os.Exit(2) // it has told the parent why
		}
		return
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Printf(usage, fewest, most, usual, shortestMax, usualMax)
		return
	}
	if err == nil {
		// On each of these the workers are stopped and the folder is deleted. SIGPIPE comes when nobody reads the output.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
		err = run(ctx, o)
		stop()
	} else {
		err = fmt.Errorf("%w (race -h explains the flags)", err)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "race: %v\n", err)
	}
	switch {
	case errors.Is(err, errRefuted):
		os.Exit(1)
	case err != nil:
		os.Exit(2)
	}
}
