package lockhttp

import (
	"context"
	"net/http"
	"sync"
	"time"
)

const (
	holdFor = 5 * time.Second        // how long a request waits for news
	keepFor = 2 * holdFor            // how long one who has asked counts as watching
	soonFor = 250 * time.Millisecond // how long after a look there may be another, if there is word
	settle  = time.Second            // by then, one who was told of a release has acquired the lock
)

// A watcher looks at the table when there is word of a release, while somebody watches. That is
// done by one goroutine, so a Subscribe that blocks costs no more than that.
type watcher struct {
	table     *table
	subscribe func(woken func()) (stop func())

	mu    sync.Mutex
	until time.Time // when nobody watches any more; zero: the goroutine has ended
}

// await waits until there is a look after the one of that time, or for holdFor. It reports whether
// the one who asks is still there.
func (w *watcher) await(ctx context.Context, after time.Time) bool {
	w.watch()
	w.table.mu.Lock()
	looked, at := w.table.looked, w.table.known.at
	w.table.mu.Unlock()
	if at.After(after) {
		return true
	}
	hold := time.NewTimer(longest(ctx))
	defer hold.Stop()
	select {
	case <-looked:
	case <-hold.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// longest returns for how long a request may wait: its server may have limits of its own.
func longest(ctx context.Context) time.Duration {
	d := holdFor
	if s, _ := ctx.Value(http.ServerContextKey).(*http.Server); s != nil && s.WriteTimeout > 0 {
		d = min(d, s.WriteTimeout/2)
	}
	if end, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(end)/2)
	}
	return d
}

// watch notes that somebody watches.
func (w *watcher) watch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until.IsZero() {
		go func() {
			for !w.ended() {
				w.listen()
			}
		}()
	}
	w.until = time.Now().Add(keepFor)
}

// left returns for how long somebody still watches.
func (w *watcher) left() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Until(w.until)
}

// ended reports whether nobody watches. Then the next one who does starts the goroutine.
func (w *watcher) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	over := time.Until(w.until) <= 0
	if over {
		w.until = time.Time{}
	}
	return over
}

// listen subscribes, and looks whenever there is word, and once more when that has settled.
func (w *watcher) listen() {
	word := make(chan struct{}, 1)
	stop := w.subscribe(func() {
		select {
		case word <- struct{}{}:
		default: // there is to be a look already
		}
	})
	defer stop()
	var settled <-chan time.Time
	for left := w.left(); left > 0; left = w.left() {
		select {
		case <-word:
			settled = time.After(settle)
		case <-settled:
			settled = nil
		case <-time.After(left):
			continue
		}
		w.table.hurry()
	}
}

// hurry looks as soon as there may be another look.
func (t *table) hurry() {
	t.mu.Lock()
	pause := time.Until(t.soonest)
	t.mu.Unlock()
	time.Sleep(pause)
	t.forget()
	t.look(context.Background())
}
