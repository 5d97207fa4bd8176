package lockhttp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	freshFor    = time.Second     // how long a look at the table is good for, at least
	restFor     = 4               // as many times as long as it took
	lookTimeout = 5 * time.Second // how long one may take
	mostRead    = 20000           // how many locks one reads
	mostText    = 8 << 20         // how many bytes of names and IDs
	checkEvery  = time.Minute     // how often a look also checks the table
)

// A view is what is known of the table.
type view struct {
	locks   []Lock // trouble first
	more    bool   // there are more locks in the table
	counts  map[string]int
	problem error     // what is wrong with the table, nil if nothing is
	at      time.Time // when locks were read; zero: never yet
	err     error     // why the last look failed, nil if it didn't
}

// A source is where the locks are: a *[lock.Lock].
type source interface {
	All(context.Context) iter.Seq2[lock.Status, error]
	CheckTable(context.Context) error
}

// A table reads the locks when they are asked for, once for all who ask while a look is fresh,
// whether that works or fails. One reads at a time; the others wait for what it finds.
type table struct {
	source source
	o      Options
	turn   chan struct{} // holds one value while somebody reads

	// For whose turn it is.
	checked time.Time
	problem error

	mu    sync.Mutex
	known view
	next  time.Time // when there has to be another look
	// soonest is when there may be another, if there is word that something has changed, and
	// looked is closed by the next look that ends.
	soonest time.Time
	looked  chan struct{}
	round   int // counts the changes, of which a look that began before them may know nothing
}

func newTable(s source, o Options) *table {
	return &table{source: s, o: o, turn: make(chan struct{}, 1), looked: make(chan struct{})}
}

// look returns what is known, after another look if the last one is too old. It returns early
// when ctx ends, with what was known before.
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
	began := time.Now()
	now := t.read(ctx)
	return t.learn(now, began, round)
}

// read is the look itself. The panic of a driver must not take down a page that is there to find
// out what is wrong.
func (t *table) read(ctx context.Context) (v view) {
	defer func() {
		if p := recover(); p != nil {
			v.err = fmt.Errorf("the Storage panicked: %v", p)
		}
	}()
	// Others may wait for this look, even if the one who began it doesn't any more. At the limit
	// the end of the context keeps the driver from reading the rest.
	ctx = context.WithoutCancel(ctx)
	reading, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	text := 0
	for s, err := range t.source.All(reading) {
		if err != nil {
			return view{err: err}
		}
		text += len(s.ComponentName) + len(s.JobName) + len(s.Holder.ComponentID) + len(s.Holder.JobID)
		if v.more = len(v.locks) == mostRead || text > mostText; v.more {
			cancel()
			break
		}
		v.locks = append(v.locks, t.o.lockOf(s))
	}
	if time.Since(t.checked) >= checkEvery {
		checking, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		t.problem, t.checked = t.source.CheckTable(checking), time.Now()
	}
	v.problem = t.problem
	v.counts = count(v.locks)
	slices.SortStableFunc(v.locks, func(a, b Lock) int { return orders[""](&a, &b) })
	return v
}

// last returns what is known, and whether that is fresh.
func (t *table) last() (view, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known, time.Now().Before(t.next)
}

// without returns what is known, for one who could not wait for more.
func (t *table) without(err error) view {
	v, _ := t.last()
	v.err = errors.Join(v.err, err)
	return v
}

// learn takes in what a look has found that began then, in that round.
func (t *table) learn(v view, began time.Time, round int) view {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.soonest = now.Add(max(soonFor, restFor*now.Sub(began)))
	close(t.looked)
	t.looked = make(chan struct{})
	rest := freshFor
	if v.err == nil {
		rest = max(freshFor, restFor*now.Sub(began))
	}
	if round == t.round {
		t.next = now.Add(rest)
	}
	if v.err != nil {
		t.known.err = v.err
		return t.known
	}
	if v.at = now; !t.known.at.IsZero() {
		t.o.Events.noticed(compare(t.known, v.locks, now))
	}
	t.known = v
	return v
}

// forget makes the next one who asks look again: something has been changed.
func (t *table) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = time.Time{}
	t.round++
}
