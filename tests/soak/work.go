package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// The instances each have their own pool, as if they were processes, alternating between pgx and
// lib/pq.
const (
	instances = 8
	each      = 8 // goroutines of an instance
	pool      = 8 // connections of an instance
	jobs      = 50
	component = "soak"

	// longest is the longest duration of all jobs. A lease is renewed every third of it.
	longest = 3 * time.Second
	// lifetime is the age at which a connection is replaced.
	lifetime = 15 * time.Second
	// warmUp is the longest time before the first sample, while pools and caches fill.
	warmUp = 5 * time.Second
)

type options struct {
	duration time.Duration
	naptime  time.Duration
	work     func(*worker) // a goroutine repeats it
	patience time.Duration // for what ends after the work; 0: a minute
}

// A worker is a goroutine of an instance.
type worker struct {
	*tally
	db  *sql.DB
	l   *lock.Lock
	id  string
	run int // the last job ID
	r   *rand.Rand
}

// A tally counts the answers of the instances, and keeps the first error that is not an answer.
type tally struct {
	mu     sync.Mutex
	events map[lock.EventKind]int
	checks int
	err    error
}

func (t *tally) observe(_ context.Context, e lock.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events[e.Kind]++
}

// expect accepts refusals, and leases that are lost or could not be released in time: the machine
// may have been busy.
func (t *tally) expect(err error) {
	if err == nil || errors.As(err, new(*lock.ErrUnauthorised)) || errors.Is(err, lock.ErrLost) ||
		errors.Is(err, context.DeadlineExceeded) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// run works for the given time, and reports the figures.
func run(ctx context.Context, o options) (r report, err error) {
	if o.duration < 5*time.Second {
		return r, fmt.Errorf("a duration of %v is too short to tell growth from chance", o.duration)
	}
	if o.naptime < time.Second || o.naptime%time.Second != 0 {
		return r, fmt.Errorf("a naptime of %v: PostgreSQL takes whole seconds", o.naptime)
	}
	if o.naptime > o.duration/5 {
		return r,
			fmt.Errorf("a naptime of %v is too long for a duration of %v: there has to be a vacuum in "+
				"each fifth of it", o.naptime, o.duration)
	}
	// PostgreSQL's default thresholds of autovacuum.
	server, err := pgtest.Start("autovacuum=on", fmt.Sprintf("autovacuum_naptime=%d",
		int(o.naptime.Seconds())))
	if err != nil {
		return r, err
	}
	defer server.Close()
	admin, err := sql.Open("pgx", server.DSN())
	if err != nil {
		return r, err
	}
	defer admin.Close()
	admin.SetMaxOpenConns(1)
	l := lock.New(admin)
	for i := range jobs {
		if err := l.Enable(component, fmt.Sprint("job-", i)); err != nil { // there is a row then
			return r, err
		}
	}
	_, err = admin.Exec("CREATE TABLE results (job_name TEXT PRIMARY KEY, runs BIGINT)")
	if err != nil {
		return r, err
	}
	if _, err := admin.Exec("INSERT INTO results SELECT 'job-' || n, 0 FROM generate_series(0, "+
		"$1::int - 1) AS n", jobs); err != nil {
		return r, err
	}
	s := sampler{admin: admin}
	before := runtime.NumGoroutine()

	for i := range instances {
		db, err := sql.Open([]string{"pgx", "postgres"}[i%2], server.DSN("application_name="+component))
		if err != nil {
			return r, err
		}
		defer db.Close()
		db.SetMaxOpenConns(pool)
		db.SetMaxIdleConns(pool)
		db.SetConnMaxLifetime(lifetime)
		s.pools = append(s.pools, db)
		if err := fill(ctx, db); err != nil {
			return r, err
		}
	}
	t := &tally{events: map[lock.EventKind]int{}}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	for i, db := range s.pools {
		l, err := lock.NewWith(db, lock.Options{NoDDL: true, Observer: t.observe})
		if err != nil {
			return r, err
		}
		for j := range each {
			w := &worker{tally: t, db: db, l: l, id: fmt.Sprintf("instance-%d/%d", i, j),
				r: rand.New(rand.NewPCG(uint64(i), uint64(j)))}
			all.Go(func() {
				for work.Err() == nil {
					o.work(w)
				}
			})
		}
	}
	samples, err := s.sample(ctx, o.duration)
	cancel()
	if err != nil {
		return r, err
	}
	r = report{options: o, tally: t, rows: judge(samples), samples: len(samples)}
	if t.err != nil {
		r.wrong = append(r.wrong, t.err.Error())
	}
	for _, row := range r.rows {
		if row.grown() {
			r.wrong = append(r.wrong, row.name+" has grown")
		}
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		r.wrong = append(r.wrong, "there are goroutines that don't end")
		return r, nil
	}
	r.wrong = append(r.wrong, s.atRest(before, cmp.Or(o.patience, time.Minute))...)
	err = admin.QueryRow("SELECT autovacuum_count FROM pg_stat_user_tables " +
		"WHERE relname = 'locks'").Scan(&r.vacuums)
	return r, err
}

// fill opens all connections of a pool, so that using it causes no growth.
func fill(ctx context.Context, db *sql.DB) error {
	for range pool {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	return nil
}

// round does one of the things that instances do with a lock.
func (w *worker) round() {
	w.run++
	job, run := fmt.Sprint("job-", w.r.IntN(jobs)), fmt.Sprint(w.run)
	switch w.r.IntN(16) {
	case 0:
		w.runJob(job, run, 0)
	case 1:
		w.runJob(job, run, time.Second)
	default:
		w.lock(job, run)
	}
	w.pause(20 * time.Millisecond)
}

// lock acquires a lock, lets another be refused, and releases it, unless it is one of those that
// die.
func (w *worker) lock(job, run string) {
	err := w.l.Lock(component, w.id, job, run, longest)
	w.expect(err)
	if err != nil {
		return
	}
	w.expect(w.l.Lock(component, w.id, job, run+", a rival", longest))
	w.pause(5 * time.Millisecond)
	if w.r.IntN(100) == 0 {
		return
	}
	w.expect(w.l.Unlock(component, w.id, job, run))
}

// runJob keeps a lock until it has to be renewed, and commits a result that only its holder may
// commit.
func (w *worker) runJob(job, run string, wait time.Duration) {
	w.expect(w.l.Run(context.Background(), lock.Job{ComponentName: component, ComponentID: w.id,
		JobName: job, JobID: run,
		TTL: longest, Wait: wait, Poll: 200 * time.Millisecond}, func(ctx context.Context) error {
		select {
		case <-time.After(longest/2 + rand.N(longest/2)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		tx, err := w.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "UPDATE results SET runs = runs + 1 WHERE job_name = $1",
			job); err != nil {
			return err
		}
		if err := lock.LeaseFrom(ctx).Check(ctx, tx); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.checks++
		return nil
	}))
}

func (w *worker) pause(most time.Duration) { time.Sleep(time.Duration(w.r.Int64N(int64(most)))) }
