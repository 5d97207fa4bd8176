package lock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

func ExampleLock_Lock() {
	l := lock.NewMemory(lock.Options{}) // a service has lock.New(db)

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
	l := lock.NewMemory(lock.Options{}) // a service has lock.New(db)

	job := lock.Job{ComponentName: "shop", JobName: "outbox", TTL: 30 * time.Second}
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
func ExampleLock_Acquire_tick() {
	l := lock.NewMemory(lock.Options{}) // a service has lock.New(db)

	tick := time.Date(2026, time.March, 29, 2, 0, 0, 0, time.UTC)
	fire := func(instance string) {
		lease, err := l.Acquire(context.Background(), lock.Job{
			ComponentName: "shop", JobName: "report", ComponentID: instance, TTL: time.Minute,
			Tick: tick,
		})
		var already *lock.ErrAlreadyRun
		switch {
		case errors.As(err, &already):
			fmt.Printf("%s: another has run %s\n", instance, already.Last().JobID)
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
	// instance-2: another has run 2026-03-29T02:00:00Z
	// instance-2: runs 2026-03-30T02:00:00Z
}

// A payout is written in a transaction that can't commit unless the lease holds the lock, so
// nothing is paid twice.
func ExampleLease_Check() {
	var db *sql.DB // the service's
	l := lock.New(db)

	pay := func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.Exec("INSERT INTO payouts VALUES ('March', 'Ada')"); err != nil {
			return err
		}
		if err := lock.LeaseFrom(ctx).Check(ctx, tx); err != nil {
			return err
		}
		return tx.Commit()
	}

	job := lock.Job{ComponentName: "shop", JobName: "payout", JobID: "March", TTL: time.Minute}
	if err := l.Run(context.Background(), job, pay); errors.Is(err, lock.ErrLost) {
		fmt.Println("another instance has the lease; nothing is paid twice")
	}
}

// A refusal says who holds the lock, and for how long.
func ExampleErrUnauthorised() {
	l, clock := locktest.New()
	if err := l.Lock("shop", "instance-1", "invoices", "run-1", time.Hour); err != nil {
		log.Fatal(err)
	}
	clock.Advance(5 * time.Minute)

	err := l.Lock("shop", "instance-2", "invoices", "run-2", time.Hour)
	var held *lock.ErrUnauthorised
	switch {
	case err == nil:
		defer l.Unlock("shop", "instance-2", "invoices", "run-2")
		// … the work …
	case errors.As(err, &held):
		h := held.Holder()
		fmt.Printf("not now: %s of %s has it, with %s, for %v\n", held.JobName(), held.ComponentName(),
			h.ComponentID, h.Age)
	default:
		log.Print(err) // the database: nobody knows who holds the lock
	}
	// Output:
	// not now: invoices of shop has it, with instance-1, for 5m0s
}

// A page for the one on call. The table doesn't say how long a job may take: the caller knows.
func ExampleLock_List() {
	l, clock := locktest.New()
	for _, err := range []error{
		l.Lock("shop", "instance-1", "backup", "run-1", time.Hour),
		l.Lock("shop", "instance-2", "invoices", "run-2", time.Hour),
		l.Unlock("shop", "instance-2", "invoices", "run-2"),
		l.Disable("shop", "report"),
	} {
		if err != nil {
			log.Fatal(err)
		}
	}
	clock.Advance(90 * time.Minute)

	all, err := l.List(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range all {
		state := "free"
		switch {
		case s.Expired(time.Hour):
			state = "held, and dead: " + s.Holder.ComponentID
		case s.Locked:
			state = "held: " + s.Holder.ComponentID
		case !s.Enabled:
			state = "disabled"
		}
		fmt.Printf("%s/%s: %s\n", s.ComponentName, s.JobName, state)
	}
	// Output:
	// shop/backup: held, and dead: instance-1
	// shop/invoices: free
	// shop/report: disabled
}

// The machine of instance-1 is gone, and nobody wants to wait until its lock expires.
// ForceRelease names the holder that was seen, so that it doesn't release a newer holder.
func ExampleLock_ForceRelease() {
	l := lock.NewMemory(lock.Options{})
	ctx := context.Background()
	if err := l.Lock("shop", "instance-1", "backup", "run-1", 0); err != nil {
		log.Fatal(err)
	}

	s, err := l.Status(ctx, "shop", "backup")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("released:", l.ForceRelease(ctx, "shop", "backup", s.Holder))
	fmt.Println("instance-2:", l.Lock("shop", "instance-2", "backup", "run-2", 0))

	// a second person, with what the first has seen
	err = l.ForceRelease(ctx, "shop", "backup", s.Holder)
	var held *lock.ErrUnauthorised
	if errors.As(err, &held) {
		fmt.Println("not released:", held.Holder().ComponentID, "has it now")
	}
	// Output:
	// released: <nil>
	// instance-2: <nil>
	// not released: instance-2 has it now
}

// Before a deployment: let nobody begin, and wait for the run that is under way.
func ExampleLock_Disable() {
	l := lock.NewMemory(lock.Options{})
	ctx := context.Background()
	if err := l.Disable("shop", "backup"); err != nil {
		log.Fatal(err)
	}
	for {
		s, err := l.Status(ctx, "shop", "backup")
		if err != nil {
			log.Fatal(err)
		}
		if !s.Locked {
			fmt.Println("nobody is at it; enabled:", s.Enabled)
			break
		}
		time.Sleep(time.Second)
	}

	err := l.Lock("shop", "instance-1", "backup", "run-1", time.Hour)
	var off *lock.ErrDisabled
	if errors.As(err, &off) {
		fmt.Println(off.JobName(), "is switched off")
	}
	// Output:
	// nobody is at it; enabled: false
	// backup is switched off
}

// A table from a migration, and two observers: a logger, and a function for metrics.
func ExampleNewWith() {
	db, mock, err := sqlmock.New() // in place of a database with the table
	if err != nil {
		log.Fatal(err)
	}
	mock.ExpectQuery(`"job locks"`).WillReturnRows(sqlmock.NewRows(locktest.Columns).
		AddRow(locktest.Granted()...))
	mock.ExpectQuery(`"job locks"`).WillReturnRows(sqlmock.NewRows(locktest.Columns).
		AddRow(locktest.HeldBy("a", "1", time.Now())...))
	mock.ExpectQuery(`"job locks"`).WillReturnRows(sqlmock.NewRows(locktest.UnlockColumns).
		AddRow(locktest.Unlocked()...))

	l, err := lock.NewWith(db, lock.Options{
		Table: "job locks",
		NoDDL: true,
		Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string,
			a slog.Attr) slog.Attr {
			if a.Key == "time" || a.Key == "took" || a.Key == "token" {
				return slog.Attr{} // so that the example prints the same each time
			}
			return a
		}})),
		Observer: func(_ context.Context, e lock.Event) {
			if e.Kind == lock.Refused {
				fmt.Printf("refused: %s/%s, held by %s\n", e.ComponentName, e.JobName, e.Holder.ComponentID)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	l.Lock("shop", "a", "prune", "1", time.Hour)
	l.Lock("shop", "b", "prune", "2", time.Hour)
	l.Unlock("shop", "a", "prune", "1")
	// Output:
	// level=INFO msg="lock acquired" operation=Lock component=shop job=prune component_id=a job_id=1
	// refused: shop/prune, held by a
	// level=INFO msg="lock released" operation=Unlock component=shop job=prune component_id=a job_id=1
}

// A stand-by waits without a limit, and leads as soon as the leader has gone.
func ExampleLock_Acquire_wait() {
	l := lock.NewMemory(lock.Options{})
	ctx := context.Background()
	job := lock.Job{ComponentName: "shop", JobName: "outbox", TTL: 30 * time.Second,
		Wait: lock.Forever, Poll: 10 * time.Millisecond}

	leader, err := l.Acquire(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	standby := make(chan *lock.Lease)
	go func() {
		lease, err := l.Acquire(ctx, job)
		if err != nil {
			log.Fatal(err)
		}
		standby <- lease
	}()

	fmt.Println("the leader goes:", leader.Release(ctx))
	lease := <-standby
	fmt.Println("the stand-by leads, with a larger token:", lease.Token() > leader.Token())
	fmt.Println("and goes:", lease.Release(ctx))
	// Output:
	// the leader goes: <nil>
	// the stand-by leads, with a larger token: true
	// and goes: <nil>
}

// A cache is filled at most once an hour, whoever finds it cold.
func ExampleJob_spacing() {
	l, clock := locktest.New()
	fill := func() {
		err := l.Run(context.Background(), lock.Job{ComponentName: "shop", JobName: "cache",
			TTL:     time.Minute,
			Spacing: time.Hour}, func(context.Context) error {
			fmt.Println("filling it")
			return nil
		})
		var already *lock.ErrAlreadyRun
		if errors.As(err, &already) {
			fmt.Println("somebody did,", already.Last().Age, "ago")
		}
	}
	fill()
	clock.Advance(20 * time.Minute)
	fill()
	clock.Advance(41 * time.Minute)
	fill()
	// Output:
	// filling it
	// somebody did, 20m0s ago
	// filling it
}

// Acquire returns a Lease for code that decides itself when to begin and when to stop.
func ExampleLease_Context() {
	l := lock.NewMemory(lock.Options{})
	ctx := context.Background()
	lease, err := l.Acquire(ctx, lock.Job{ComponentName: "shop", JobName: "outbox",
		ComponentID: "instance-1", JobID: "run-1",
		TTL: 30 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Release(ctx)

	// Somebody believes that instance-1 is dead.
	if err := l.ForceRelease(ctx, "shop", "outbox", lock.Holder{ComponentID: "instance-1",
		JobID: "run-1"}); err != nil {
		log.Fatal(err)
	}
	lease.Renew(ctx) // happens in the background, here every ten seconds

	<-lease.Context().Done()
	fmt.Println(context.Cause(lease.Context()))
	// Output:
	// the lease is lost: it was released by another
}

// Before an action that can't be undone and isn't in the database: make sure that the lease holds
// the lock now. Afterwards it has the whole TTL.
func ExampleLease_Renew() {
	l := lock.NewMemory(lock.Options{})
	job := lock.Job{ComponentName: "shop", JobName: "newsletter", TTL: time.Minute}
	err := l.Run(context.Background(), job, func(ctx context.Context) error {
		if err := lock.LeaseFrom(ctx).Renew(ctx); err != nil {
			return err
		}
		fmt.Println("sending it")
		return nil
	})
	fmt.Println(err)
	// Output:
	// sending it
	// <nil>
}

// A store that remembers the largest token refuses a late holder, even one that doesn't know yet
// that it has lost the lock.
func ExampleLease_Token() {
	l, clock := locktest.New()
	ctx := context.Background()
	var seen int64
	store := func(token int64, what string) {
		if token < seen {
			fmt.Println("refused:", what)
			return
		}
		seen = token
		fmt.Println("stored:", what)
	}

	job := lock.Job{ComponentName: "shop", JobName: "report", TTL: time.Minute}
	first, err := l.Acquire(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	defer first.Release(ctx)
	store(first.Token(), "page 1 of the first")
	clock.Advance(2 * time.Minute) // the first is stopped and can't renew its lease
	second, err := l.Acquire(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	defer second.Release(ctx)
	store(second.Token(), "page 1 of the second")
	store(first.Token(), "page 2 of the first")
	store(second.Token(), "page 2 of the second")
	// Output:
	// stored: page 1 of the first
	// stored: page 1 of the second
	// refused: page 2 of the first
	// stored: page 2 of the second
}

// An instance that takes over from a dead holder may want to clean up after it.
func ExampleLease_TakenFrom() {
	l, clock := locktest.New()
	if err := l.Lock("shop", "instance-1", "import", "run-1", time.Minute); err != nil {
		log.Fatal(err)
	}
	clock.Advance(time.Hour) // instance-1 has died

	err := l.Run(context.Background(), lock.Job{ComponentName: "shop", JobName: "import",
		TTL: time.Minute},
		func(ctx context.Context) error {
			if dead := lock.LeaseFrom(ctx).TakenFrom(); dead != nil {
				fmt.Printf("throwing away what %s of %s has left behind\n", dead.JobID, dead.ComponentID)
			}
			fmt.Println("importing")
			return nil
		})
	fmt.Println(err)
	// Output:
	// throwing away what run-1 of instance-1 has left behind
	// importing
	// <nil>
}

// A service takes a Locker. Its caller decides whether there is something to share.
func ExampleNoopLocker() {
	backup := func(l lock.Locker) error {
		if err := l.Lock("shop", "instance-1", "backup", "run-1", time.Hour); err != nil {
			return err
		}
		defer l.Unlock("shop", "instance-1", "backup", "run-1")
		fmt.Println("making the backup")
		return nil
	}
	fmt.Println(backup(&lock.NoopLocker{}))             // alone
	fmt.Println(backup(lock.NewMemory(lock.Options{}))) // or lock.New(db), in a fleet
	// Output:
	// making the backup
	// <nil>
	// making the backup
	// <nil>
}
