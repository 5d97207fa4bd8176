// Command peers measures what keeps a job on one instance at a time, this library and others, side
// by side on one machine, and prints one table in Markdown.
//
//	go run ./tests/peers
//
// It starts each server itself, durable as it is by default, on the loopback interface. What is
// not installed is left out, and its row says so.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	failed := false
	var rows, versions []string
	for _, p := range peers() {
		if ctx.Err() != nil {
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, p.name)
		version, cells, err := p.measure(ctx)
		if err != nil {
			failed = failed || !missing(err)
			cells = []string{strings.ReplaceAll(err.Error(), "\n", " "), "", "", ""}
		}
		rows = append(rows, fmt.Sprintf("| %s | %s |\n", p.name, strings.Join(cells, " | ")))
		if version != "" && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	fmt.Print(caption(versions), head, strings.Join(rows, ""))
	if failed {
		os.Exit(1)
	}
}

const head = `
| | acquire and release, µs | refused try, µs | handoff, ms | requests a second |
| --- | ---: | ---: | ---: | ---: |
`

// caption says when and with what the table was made.
func caption(versions []string) string {
	info, _ := debug.ReadBuildInfo()
	for _, client := range []string{"jackc/pgx", "modernc.org/sqlite", "redsync", "redislock",
		"etcd/client/v3", "go-zookeeper"} {
		for _, m := range info.Deps {
			if strings.Contains(m.Path, client) {
				versions = append(versions, client+" "+m.Version)
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s; %s. Medians of %d pairs, %d tries and %d handoffs; "+
		"requests while %d wait.\n", time.Now().Format(time.DateOnly), runtime.NumCPU(),
		runtime.Version(), strings.Join(versions, ", "), pairs, refusals, handoffs, waiters)
}
