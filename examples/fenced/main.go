// Command fenced refuses the late write of a holder that has lost its lock without knowing.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// A Store is outside of the database. It refuses a token smaller than one that it has seen.
type Store struct{ token int64 }

func (s *Store) Write(token int64, what string) {
	if token < s.token {
		fmt.Println("refused:", what)
		return
	}
	s.token = token
	fmt.Println("written:", what)
}

func main() {
	now := time.Now()
	// a service has lock.New(db)
	l := lock.NewMemory(lock.Options{Clock: func() time.Time { return now }})
	ctx, s := context.Background(), new(Store)
	job := lock.Job{ComponentName: "shop", JobName: "payout", TTL: time.Minute}

	first, err := l.Acquire(ctx, job)
	if err != nil {
		fmt.Println(err)
		return
	}
	now = now.Add(2 * time.Minute) // the first is cut off meanwhile, and can't renew its lease

	second, err := l.Acquire(ctx, job)
	if err != nil {
		fmt.Println(err)
		return
	}
	s.Write(second.Token(), "by the second")
	s.Write(first.Token(), "by the first, late")

	// Results in the lock's database need no token: Check, in the transaction that writes them,
	// prevents the commit. A lock in memory has no transactions.
	err = first.Check(ctx, nil)
	fmt.Println("lost:", errors.Is(err, lock.ErrLost))
	fmt.Println("the second:", second.Check(ctx, nil), second.Release(ctx))
}
