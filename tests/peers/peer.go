package main

import (
	"context"
	"errors"
	"time"
)

// A peer is one way to have one holder at a time.
type peer struct {
	name  string
	poll  time.Duration // the longest time between two looks of a waiter; 0: it is told
	start func() (*server, error)
	open  func(ctx context.Context, s *server) (*instance, error)
}

// An instance competes with the others for one lock, through connections of its own.
type instance struct {
	try     func(context.Context) error // returns errRefused if another holds it; nil: there is none
	acquire func(context.Context) error // waits; once ctx has ended, the instance is of no use
	release func(context.Context) error
	close   func()
}

var errRefused = errors.New("another holds the lock")

// refusal returns errRefused if err matches what a peer calls it.
func refusal(err, theirs error) error {
	if errors.Is(err, theirs) {
		return errRefused
	}
	return err
}

// ttl is how long a lock outlives its holder, wherever that can be said.
const ttl = time.Minute

func peers() []peer {
	return []peer{
		{"lock, PostgreSQL", time.Second, startPostgres, openLock},
		{"lock, PostgreSQL, locknotify", 0, startPostgres, openNotified},
		{"lock, CockroachDB", time.Second, startCockroach, openLock},
		{"lock, SQLite", 4 * time.Millisecond, startSQLite, openLock},
		{"lock, memory", 0, startMemory, openMemory},
		{"pg_advisory_lock, pgx", 0, startPostgres, openAdvisory},
		{"SELECT … FOR UPDATE, pgx", 0, startPostgres, openRow},
		{"redsync, Redis", 250 * time.Millisecond, redis.launch, openRedsync},
		{"redislock, Redis", redislockPoll, redis.launch, openRedislock},
		{"etcd, concurrency.Mutex", 0, etcd.launch, openEtcd},
		{"ZooKeeper, zk.Lock", 0, startZooKeeper, openZooKeeper},
	}
}
