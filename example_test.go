package lock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
)

// open returns a database of its own, in place of the one that the fleet shares.
func open() (db *sql.DB, done func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	db, err = sql.Open("sqlite", "file:"+filepath.Join(dir, "locks.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		db.Close()
		os.RemoveAll(dir)
	}
}

func ExampleLock_Lock() {
	db, done := open()
	defer done()
	l := lock.New(db)

	fmt.Println("instance-1:", l.Lock("shop", "instance-1", "invoices", "run-1", 10*time.Minute))

	err := l.Lock("shop", "instance-2", "invoices", "run-2", 10*time.Minute)
	var held *lock.ErrUnauthorised
	if errors.As(err, &held) {
		fmt.Println("instance-2:", held.Holder().ComponentID, "has it")
	}

	fmt.Println("instance-1:", l.Unlock("shop", "instance-1", "invoices", "run-1"))
	fmt.Println("instance-2:", l.Lock("shop", "instance-2", "invoices", "run-2", 10*time.Minute))
	// Output:
	// instance-1: <nil>
	// instance-2: instance-1 has it
	// instance-1: <nil>
	// instance-2: <nil>
}

func ExampleLock_Run() {
	db, done := open()
	defer done()
	l := lock.New(db)

	job := lock.Job{ComponentName: "shop", JobName: "outbox", MaxDuration: 30 * time.Second}
	err := l.Run(context.Background(), job, func(ctx context.Context) error {
		// ctx ends when the lease is lost.
		fmt.Println("draining the outbox")

		// Any other run is refused meanwhile.
		err := l.Run(ctx, job, func(context.Context) error { return errors.New("two at once") })
		var held *lock.ErrUnauthorised
		fmt.Println("refused:", errors.As(err, &held))
		return nil
	})
	fmt.Println(err)
	// Output:
	// draining the outbox
	// refused: true
	// <nil>
}

// Every instance fires every tick of the schedule, and one of them runs it.
func ExampleLock_Acquire_once() {
	db, done := open()
	defer done()
	l := lock.New(db)

	tick := time.Date(2026, time.March, 29, 2, 0, 0, 0, time.UTC)
	fire := func(instance string) {
		lease, err := l.Acquire(context.Background(), lock.Job{
			ComponentName: "shop", JobName: "report", ComponentID: instance, MaxDuration: time.Minute,
			Once: true, JobID: lock.Tick(tick),
		})
		var already *lock.ErrAlreadyRun
		switch {
		case errors.As(err, &already):
			fmt.Printf("%s: %s has run %s\n", instance, already.Last().ComponentID, already.Last().JobID)
		case err != nil:
			fmt.Println(err)
		default:
			defer lease.Release(context.Background())
			fmt.Printf("%s: runs %s\n", instance, lease.Job().JobID)
		}
	}
	fire("instance-1")
	fire("instance-2") // its clock is a little late: the run is over
	tick = tick.Add(24 * time.Hour)
	fire("instance-2")
	// Output:
	// instance-1: runs 2026-03-29T02:00:00Z
	// instance-2: instance-1 has run 2026-03-29T02:00:00Z
	// instance-2: runs 2026-03-30T02:00:00Z
}

// A payout is written by a transaction that can't commit unless the lease is held, so nothing is paid twice.
func ExampleLease_Check() {
	db, done := open()
	defer done()
	if _, err := db.Exec("CREATE TABLE payouts (month TEXT, payee TEXT)"); err != nil {
		log.Fatal(err)
	}
	l := lock.New(db)
	ctx := context.Background()

	pay := func(lease *lock.Lease) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.Exec("INSERT INTO payouts VALUES ('March', 'Ada')"); err != nil {
			return err
		}
		if err := lease.Check(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	}

	job := lock.Job{ComponentName: "shop", JobName: "payout", ComponentID: "instance-1", JobID: "March", MaxDuration: time.Minute}
	stale, err := l.Acquire(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	// Somebody takes instance-1 for dead, before it has paid, and lets instance-2 begin.
	seen := lock.Holder{ComponentID: "instance-1", JobID: "March"}
	if err := l.ForceRelease(ctx, "shop", "payout", seen); err != nil {
		log.Fatal(err)
	}
	job.ComponentID = "instance-2"
	lease, err := l.Acquire(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Release(ctx)

	fmt.Println("instance-1 has lost the lease:", errors.Is(pay(stale), lock.ErrLost))
	fmt.Println("instance-2:", pay(lease))
	fmt.Println("its token is larger:", lease.Token() > stale.Token())
	var payouts int
	if err := db.QueryRow("SELECT count(*) FROM payouts").Scan(&payouts); err != nil {
		log.Fatal(err)
	}
	fmt.Println("payouts:", payouts)
	// Output:
	// instance-1 has lost the lease: true
	// instance-2: <nil>
	// its token is larger: true
	// payouts: 1
}

// On a laptop there is no database, and nothing to share.
func ExampleNewLocal() {
	l := lock.NewLocal(nil)
	err := l.Run(context.Background(), lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: time.Minute},
		func(ctx context.Context) error {
			fmt.Println("reporting, token above 0:", lock.LeaseFrom(ctx).Token() > 0)
			return nil
		})
	fmt.Println(err)
	// Output:
	// reporting, token above 0: true
	// <nil>
}
