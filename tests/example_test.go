package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// An instance that has lost its lease pays nothing.
func Example_check() {
	db, err := sql.Open("sqlite", "file:payouts?mode=memory")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // each connection would have a memory of its own
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

	job := lock.Job{ComponentName: "shop", JobName: "payout", ComponentID: "instance-1",
		JobID: "March", TTL: time.Minute}
	stale, err := l.Acquire(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	defer stale.Release(ctx)
	// Somebody believes that instance-1 is dead, before it has paid, and lets instance-2 begin.
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
