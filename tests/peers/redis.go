package main

import (
	"context"
	"errors"
	"math"
	"regexp"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	goredislib "github.com/redis/go-redis/v9"
)

var redis = program{
	name: "Redis", file: "redis-server",
	args: func(dir, port string) []string {
		return []string{"--bind", "127.0.0.1", "--port", port, "--dir", dir}
	},
	question: "INFO\r\nQUIT\r\n",
	version:  regexp.MustCompile(`redis_version:(\S+)`),
	requests: regexp.MustCompile(`total_reads_processed:(\d+)`), // the commands in scripts are none
}

func openRedsync(_ context.Context, s *server) (*instance, error) {
	client := goredislib.NewClient(&goredislib.Options{Addr: s.addr})
	mutex := redsync.New(goredis.NewPool(client)).
		NewMutex("job", redsync.WithExpiry(ttl), redsync.WithTries(math.MaxInt))
	return &instance{
		try: func(ctx context.Context) error {
			err := mutex.TryLockContext(ctx)
			if taken := new(redsync.ErrTaken); errors.As(err, &taken) {
				return errRefused
			}
			return err
		},
		acquire: mutex.LockContext,
		release: func(ctx context.Context) error {
			_, err := mutex.UnlockContext(ctx)
			return err
		},
		close: func() { client.Close() },
	}, nil
}

// redislockPoll is that of redislock's own example: it has no default.
const redislockPoll = 100 * time.Millisecond

func openRedislock(_ context.Context, s *server) (*instance, error) {
	client := goredislib.NewClient(&goredislib.Options{Addr: s.addr})
	poll := &redislock.Options{RetryStrategy: redislock.LinearBackoff(redislockPoll)}
	var lock *redislock.Lock
	return &instance{
		try: func(ctx context.Context) (err error) {
			lock, err = redislock.Obtain(ctx, client, "job", ttl, nil)
			return refusal(err, redislock.ErrNotObtained)
		},
		acquire: func(ctx context.Context) (err error) {
			lock, err = redislock.Obtain(ctx, client, "job", ttl, poll)
			return err
		},
		release: func(ctx context.Context) error { return lock.Release(ctx) },
		close:   func() { client.Close() },
	}, nil
}
