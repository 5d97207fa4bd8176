package lockhttp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	freshFor    = time.Second     // how long a look at the table is good for
	lookTimeout = 5 * time.Second // how long one may take
)

// A view is what is known of the table.
type view struct {
	locks   []lock.Status
	at      time.Time // when locks were read; zero: never yet
	err     error     // why the last look failed, nil if it didn't
	changes []handover
}

// A table reads the locks when they are asked for, once for all who ask within a second, whether that works or fails. One reads
// at a time; the others wait for what it finds.
type table struct {
	list func(context.Context) ([]lock.Status, error) // that of the lock
	turn chan struct{}                                // holds one value while somebody reads

	mu    sync.Mutex
	known view
	tried time.Time // the end of the last look; zero: there has to be another
	round int       // counts the changes, of which a look that began before them may know nothing
}

func newTable(list func(context.Context) ([]lock.Status, error)) *table {
	return &table{list: list, turn: make(chan struct{}, 1)}
}

// look returns what is known, after another look if the last one is too old. It returns early when ctx ends, with what was known
// before.
func (t *table) look(ctx context.Context) view {
	if v, fresh := t.last(); fresh {
		return v
	}
	patience := time.NewTimer(lookTimeout)
	defer patience.Stop()
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return t.without(ctx.Err())
	case <-patience.C: // whoever reads may have a Storage that knows no contexts
		return t.without(fmt.Errorf("the database has not answered for %v", lookTimeout))
	}
	defer func() { <-t.turn }()
	if v, fresh := t.last(); fresh {
		return v
	}
	t.mu.Lock()
	round := t.round
	t.mu.Unlock()
	// Others may wait for this look, even if the one who began it doesn't any more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	locks, err := t.read(ctx)
	return t.learn(locks, err, time.Now(), round)
}

// read is the look itself. The panic of a driver must not take down a page that is there to find out what is wrong.
func (t *table) read(ctx context.Context) (locks []lock.Status, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Storage panicked: %v", p)
		}
	}()
	return t.list(ctx)
}

// last returns what is known, and whether that is fresh.
func (t *table) last() (view, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known, !t.tried.IsZero() && time.Since(t.tried) < freshFor
}

// without returns what is known, for one who could not wait for more.
func (t *table) without(err error) view {
	v, _ := t.last()
	v.err = errors.Join(v.err, err)
	return v
}

// learn takes in what a look has found that began in that round.
func (t *table) learn(locks []lock.Status, err error, now time.Time, round int) view {
	t.mu.Lock()
	defer t.mu.Unlock()
	if round == t.round {
		t.tried = now
	}
	t.known.err = err
	if err == nil {
		if !t.known.at.IsZero() {
			t.known.changes = latest(append(compare(t.known, locks, now), t.known.changes...))
		}
		t.known.locks, t.known.at = locks, now
	}
	return t.known
}

// forget makes the next one who asks look again: something has been changed.
func (t *table) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tried = time.Time{}
	t.round++
}
