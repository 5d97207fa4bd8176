//go:build linux

// Command cmd tortures package lock on its own PostgreSQL or CockroachDB servers, checks its
// answers, and prints the figures:
//
//	go run ./tests/torture/cmd -operations 1000000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/cloudtrust/go-jobs/lock/tests/torture"
)

func main() {
	if torture.Main() {
		return
	}
	o := torture.Options{Out: os.Stdout}
	flag.DurationVar(&o.Duration, "duration", time.Minute, "run at least so long")
	flag.IntVar(&o.Operations, "operations", 0, "and at least so many operations")
	flag.IntVar(&o.Round, "round", 10_000,
		"operations, after which the history is checked and another begins")
	flag.IntVar(&o.Processes, "processes", 4, "client processes")
	flag.IntVar(&o.Goroutines, "goroutines", 8, "goroutines of each")
	flag.IntVar(&o.Jobs, "jobs", 24, "jobs that they compete for")
	flag.DurationVar(&o.TTL, "ttl", 150*time.Millisecond,
		"the shortest TTL of the jobs; the longest that ends is five times as long")
	flag.IntVar(&o.Faults, "faults", 10, "at least so many in each round; 0 means none")
	flag.IntVar(&o.Lose, "lose", 50,
		"of so many statements of a client one request and one reply is lost; 0 means none")
	flag.IntVar(&o.Cockroach, "cockroach", 0, "so many nodes of CockroachDB; 0 means PostgreSQL")
	flag.DurationVar(&o.Pause, "pause", 300*time.Millisecond, "mean time between two faults")
	flag.IntVar(&o.FailOver, "failover", 3,
		"every so many rounds fail over to a synchronous standby; 0 means never")
	flag.Uint64Var(&o.Seed, "seed", 1, "of the random choices")
	flag.StringVar(&o.Variant, "variant", "",
		"which clients: \"\" for the library, or one of those that must be found guilty")
	flag.BoolVar(&o.StopEarly, "stop", false, "stop at the first violation")
	flag.StringVar(&o.Dir, "dir", "",
		"an empty folder, for what is found; \"\" means a new one for temporary files")
	skew := flag.Bool("skew", true, "build a client whose clock is wrong, for half of the processes")
	flag.Parse()
	if err := run(o, *skew); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o torture.Options, skew bool) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if o.Exe, err = os.Executable(); err != nil {
		return err
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "torture"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return err
	}
	if found, err := os.ReadDir(o.Dir); err != nil || len(found) > 0 {
		return errors.Join(fmt.Errorf("the folder %s is not empty: the histories in it would be taken "+
			"for this run's", o.Dir), err)
	}
	if skew {
		if o.Skewed,
			err = torture.BuildSkewed(o.Dir,
			"github.com/cloudtrust/go-jobs/lock/tests/torture/cmd"); err != nil {
			return err
		}
	}
	report, err := torture.Run(ctx, o)
	report.Print(os.Stdout)
	if err == nil && len(report.Violations) > 0 {
		err = fmt.Errorf("%d violations; the histories are in %s", len(report.Violations), o.Dir)
	}
	return err
}
