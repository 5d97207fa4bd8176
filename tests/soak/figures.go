package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// figures are sampled. Each has the growth that is allowed from the beginning to the end, and how
// its samples are read. A table never shrinks, so its size shows the most dead rows at a time;
// without vacuum, it would be tens of times as large as allowed.
var figures = []struct {
	name string
	most int64
	at   func(sorted []int64) int64
}{
	{"live heap after a collection, the least, KiB", 1024, least}, // what is there between two calls
	{"goroutines", 32, median},
	{"connections, by the pools", 8, median},
	{"connections, by the server", 8, median},
	{"live rows of locks", 10, median},
	{"dead rows of locks, the fewest", 200, least}, // what autovacuum leaves
	{"dead rows of locks", 2000, median},
	{"table and index of locks, KiB", 512, median},
}

func median(sorted []int64) int64 { return sorted[len(sorted)/2] }
func least(sorted []int64) int64  { return sorted[0] }

// A sample is the figures at one time, in their order.
type sample []int64

type sampler struct {
	admin *sql.DB // a connection that is not counted
	pools []*sql.DB
}

// fewest is the least number of samples, even on a busy machine.
const fewest = 20

// sample takes samples for the time, after the warm-up: fifty, or one every five seconds.
func (s sampler) sample(ctx context.Context, d time.Duration) (all []sample, err error) {
	warmUp := min(warmUp, d/4)
	begin := time.Now().Add(warmUp)
	next := time.NewTimer(warmUp)
	defer next.Stop()
	for time.Since(begin) < d || len(all) < fewest {
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		next.Reset(min(d/50, 5*time.Second))
		now, err := s.now()
		if err != nil {
			return nil, err
		}
		all = append(all, now)
	}
	return all, nil
}

func (s sampler) now() (sample, error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var open int64
	for _, db := range s.pools {
		open += int64(db.Stats().OpenConnections)
	}
	var server, live, dead, size int64
	err := s.admin.QueryRow(`SELECT
		(SELECT count(*) FROM pg_stat_activity WHERE application_name = $1),
		n_live_tup, n_dead_tup, pg_total_relation_size(relid)
		FROM pg_stat_user_tables WHERE relname = 'locks'`, component).Scan(&server, &live, &dead, &size)
	return sample{int64(m.HeapAlloc) >> 10, int64(runtime.NumGoroutine()), open, server, live, dead,
		dead, size >> 10}, err
}

// atRest returns the figures after the work. What was cancelled or closed ends soon after.
func (s sampler) atRest(goroutines int, patience time.Duration) (wrong []string) {
	soon := func(done func() bool) bool {
		for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				return false
			}
		}
		return true
	}
	for i, db := range s.pools {
		if !soon(func() bool { return db.Stats().InUse == 0 }) {
			wrong = append(wrong,
				fmt.Sprintf("%d connections of instance %d are in use, and nobody uses them", db.Stats().InUse,
					i))
		}
		db.Close()
	}
	var server, now int
	if !soon(func() bool {
		err := s.admin.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1",
			component).Scan(&server)
		now = runtime.NumGoroutine()
		return err == nil && server == 0 && now <= goroutines
	}) {
		wrong = append(wrong, fmt.Sprintf("%d connections and %d goroutines are left", server,
			now-goroutines))
	}
	return wrong
}

// A row is the result of a figure, and its maximum.
type row struct {
	name                     string
	begin, middle, end, peak int64
	most                     int64 // allowed growth
}

func (r row) grown() bool { return r.end > r.begin+r.most }

// judge compares the first fifth of the samples with the last, not single ones, since each figure
// goes up and down.
func judge(all []sample) (rows []row) {
	fifth := len(all) / 5
	for i, f := range figures {
		in := func(from int) int64 {
			var values []int64
			for _, s := range all[from : from+fifth] {
				values = append(values, s[i])
			}
			slices.Sort(values)
			return f.at(values)
		}
		r := row{name: f.name, most: f.most, begin: in(0), middle: in((len(all) - fifth) / 2),
			end: in(len(all) - fifth)}
		for _, s := range all {
			r.peak = max(r.peak, s[i])
		}
		rows = append(rows, r)
	}
	return rows
}

// A report is the result of a run.
type report struct {
	options
	*tally
	samples int
	rows    []row
	vacuums int
	wrong   []string // nothing, if all is well
}

// print writes the report as Markdown.
func (r report) print(w io.Writer) {
	fmt.Fprintf(w,
		"%v, %d instances with %d goroutines each and a pool of %d, %d jobs; autovacuum every %v, "+
			"which has cleared the table %d times.\n",
		r.duration, instances, each, pool, jobs, r.naptime, r.vacuums)
	for _, kind := range []lock.EventKind{lock.Acquired, lock.TakenOver, lock.Refused, lock.Renewed,
		lock.Released, lock.Lost, lock.Failed} {
		fmt.Fprintf(w, "%d %s, ", r.events[kind], kind)
	}
	fmt.Fprintf(w, "%d transactions with Check; %d samples.\n\n", r.checks, r.samples)
	fmt.Fprintln(w,
		"| | begin | middle | end | most | growth allowed | |\n| --- | ---: | ---: | ---: | ---: | "+
			"---: | --- |")
	for _, row := range r.rows {
		verdict := "steady"
		if row.grown() {
			verdict = "GROWN"
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %s |\n", row.name, row.begin, row.middle, row.end,
			row.peak, row.most, verdict)
	}
	fmt.Fprintln(w)
	for _, what := range r.wrong {
		fmt.Fprintln(w, "WRONG:", what)
	}
	if len(r.wrong) == 0 {
		fmt.Fprintln(w, "Nothing has grown, and at the end no goroutine and no connection is left.")
	}
}
