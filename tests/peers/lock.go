package main

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locknotify"
)

// competing returns an instance that competes by means of this library.
func competing(l *lock.Lock, stop func()) *instance {
	var lease *lock.Lease
	acquire := func(ctx context.Context, job lock.Job) (err error) {
		job.ComponentName, job.JobName, job.TTL = "peers", "job", ttl
		lease, err = l.Acquire(ctx, job)
		return err
	}
	return &instance{
		try: func(ctx context.Context) error {
			return refusal(acquire(ctx, lock.Job{}), lock.ErrRefused)
		},
		acquire: func(ctx context.Context) error {
			return acquire(ctx, lock.Job{Wait: lock.Forever})
		},
		release: func(ctx context.Context) error { return lease.Release(ctx) },
		close:   stop,
	}
}

func openLock(_ context.Context, s *server) (*instance, error) {
	driver := "pgx"
	if strings.HasPrefix(s.addr, "file:") {
		driver = "sqlite"
	}
	db, err := sql.Open(driver, s.addr)
	if err != nil {
		return nil, err
	}
	return competing(lock.New(db), func() { db.Close() }), nil
}

func openNotified(_ context.Context, s *server) (*instance, error) {
	db, err := sql.Open("pgx", s.addr)
	if err != nil {
		return nil, err
	}
	notifier, err := locknotify.New(s.addr, locknotify.Options{})
	if err != nil {
		return nil, err
	}
	l, err := lock.NewWith(db, lock.Options{Notifier: notifier})
	return competing(l, func() { notifier.Close(); db.Close() }), err
}

// memory is shared: the instances are of one process.
var memory = lock.NewMemory(lock.Options{})

func startMemory() (*server, error) { return &server{stop: func() {}}, nil }

func openMemory(context.Context, *server) (*instance, error) {
	return competing(memory, func() {}), nil
}

func startSQLite() (*server, error) {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return nil, err
	}
	return &server{
		addr: "file:" + filepath.Join(dir, "locks.db") +
			"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)",
		stop: func() { os.RemoveAll(dir) },
	}, nil
}
