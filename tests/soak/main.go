// Command soak keeps many instances busy with one table of locks, on a PostgreSQL server of its
// own, and fails if anything has grown at the end that should not: memory, goroutines,
// connections, dead rows, the table.
//
//	go run ./tests/soak
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	o := options{work: (*worker).round}
	flag.DurationVar(&o.duration, "duration", 10*time.Minute, "how long to work")
	flag.DurationVar(&o.naptime, "naptime", time.Minute,
		"autovacuum_naptime of the server, in whole seconds; a minute is PostgreSQL's default")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	r, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	if r.print(os.Stdout); len(r.wrong) > 0 {
		os.Exit(1)
	}
}
