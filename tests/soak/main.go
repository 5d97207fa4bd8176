// Command soak keeps many instances busy with one table of locks, on its own PostgreSQL server,
// and fails if memory, goroutines, connections, dead rows or the table have grown at the end.
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
