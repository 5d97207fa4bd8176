package lockhttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A bus is what a page subscribes to. It counts how often that is done.
type bus struct {
	mu           sync.Mutex
	woken        func() // of the last who has subscribed
	begun, ended int
	blocks       chan struct{} // unless nil, Subscribe and stop return when it is closed
}

func (b *bus) subscribe(woken func()) func() {
	b.mu.Lock()
	b.woken = woken
	b.begun++
	b.mu.Unlock()
	b.wait()
	return func() {
		b.mu.Lock()
		b.ended++
		b.mu.Unlock()
		b.wait()
	}
}

// tell gives the word to the last who has subscribed, even if that was ended.
func (b *bus) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.woken != nil {
		b.woken()
	}
}

func (b *bus) wait() {
	if b.blocks != nil {
		<-b.blocks
	}
}

// counts returns how often somebody has subscribed, and stopped, once all is quiet.
func (b *bus) counts() [2]int {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return [2]int{b.begun, b.ended}
}

func watched(db *slow, b *bus) *handler {
	allow := func(*http.Request, Action) error { return nil }
	h := New(nil, Options{Authorize: allow, Subscribe: b.subscribe}).(*handler)
	h.table.source = rows(db.all)
	return h
}

// ask asks as the page does: for a state after another, if that had a time.
func (h *handler) ask(t *testing.T, last State) (s State) {
	q := url.Values{"format": {"json"}}
	if last.LookedAt != nil {
		q.Set("after", last.LookedAt.Format(time.RFC3339Nano))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/?"+q.Encode(), nil))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &s))
	require.True(t, s.MayWait)
	return s
}

// page asks again and again for so long, as a page does.
func (h *handler) page(t *testing.T, d time.Duration) {
	var last State
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(soonFor) {
		last = h.ask(t, last)
	}
}

func TestOptions_Subscribe(t *testing.T) {
	t.Run("what is told is shown at once, and what it leads to", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db, b := &slow{}, &bus{}
			h := watched(db, b)
			first := h.ask(t, State{})
			require.Equal(t, [2]int{0, 0}, b.counts(), "nobody watches yet")
			start := time.Now()
			go func() {
				time.Sleep(soonFor)
				b.tell()
			}()
			for i, want := range []time.Duration{soonFor, soonFor + settle,
				soonFor + settle + holdFor, soonFor + settle + 2*holdFor} {
				s := h.ask(t, first)
				require.Equal(t, want, time.Since(start))
				require.EqualValues(t, i+2, db.looks.Load())
				require.True(t, s.LookedAt.After(*first.LookedAt))
				first = s
			}
			time.Sleep(keepFor)
			require.Equal(t, [2]int{1, 1}, b.counts())
		})
	})

	t.Run("what was told between two requests is not missed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &bus{}
			h := watched(&slow{}, b)
			last := h.ask(t, h.ask(t, State{}))
			time.Sleep(soonFor)
			b.tell()
			synctest.Wait()
			start := time.Now()
			require.True(t, h.ask(t, last).LookedAt.After(*last.LookedAt))
			require.Zero(t, time.Since(start))
			time.Sleep(keepFor)
		})
	})

	t.Run("a storm", func(t *testing.T) {
		for _, c := range []struct {
			takes time.Duration
			most  int64 // looks in a minute
		}{{0, 4*60 + 1}, {50 * time.Millisecond, 4*60 + 1}, {time.Second, 60/5 + 2}} {
			synctest.Test(t, func(t *testing.T) {
				db, b := &slow{takes: c.takes}, &bus{}
				h := watched(db, b)
				var pages sync.WaitGroup
				for range 8 {
					pages.Go(func() { h.page(t, time.Minute) })
				}
				time.Sleep(2 * c.takes)
				pages.Go(func() {
					for range 60_000 {
						time.Sleep(time.Millisecond)
						b.tell()
					}
				})
				pages.Wait()
				require.LessOrEqual(t, db.looks.Load(), c.most)
				require.Greater(t, db.looks.Load(), c.most/2)
				time.Sleep(keepFor)
				require.Equal(t, [2]int{1, 1}, b.counts(), "one subscription for all")
			})
		}
	})

	t.Run("without a word, the table is read every five seconds", func(t *testing.T) {
		for name, blocks := range map[string]bool{"silent": false, "blocks": true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					db, b := &slow{}, &bus{}
					if blocks {
						b.blocks = make(chan struct{})
					}
					h := watched(db, b)
					for range 10 { // pages come and go
						h.page(t, time.Minute)
						time.Sleep(time.Hour)
					}
					require.InDelta(t, 10*60/5, db.looks.Load(), 10)
					if !blocks {
						require.Equal(t, [2]int{10, 10}, b.counts())
						return
					}
					require.Equal(t, [2]int{1, 0}, b.counts(), "it is not called anew")
					close(b.blocks)
					require.Equal(t, [2]int{1, 1}, b.counts(), "nobody watches any more")
				})
			})
		}
	})

	t.Run("word for nobody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db, b := &slow{}, &bus{}
			h := watched(db, b)
			h.ask(t, h.ask(t, State{}))
			time.Sleep(keepFor)
			require.Equal(t, [2]int{1, 1}, b.counts())
			before := db.looks.Load()
			b.tell() // it was stopped
			b.tell()
			time.Sleep(time.Hour)
			require.Equal(t, before, db.looks.Load())
		})
	})

	t.Run("a look that fails is shown, too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db, b := &slow{}, &bus{}
			h := watched(db, b)
			last := h.ask(t, State{})
			time.Sleep(soonFor)
			db.err = errors.New("away")
			go func() {
				synctest.Wait()
				b.tell()
			}()
			start := time.Now()
			require.Equal(t, "away", h.ask(t, last).Error)
			require.Zero(t, time.Since(start))
			time.Sleep(keepFor)
		})
	})

	t.Run("a page that is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			db := &slow{}
			h := watched(db, &bus{})
			last := h.ask(t, State{})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(2*time.Second, cancel)
			start := time.Now()
			require.False(t, h.watcher.await(ctx, *last.LookedAt))
			require.Equal(t, 2*time.Second, time.Since(start))
			require.EqualValues(t, 1, db.looks.Load())
			time.Sleep(keepFor)
		})
	})
}

// A request isn't held for longer than its server lets it last.
func TestLongest(t *testing.T) {
	served := func(write time.Duration) context.Context {
		return context.WithValue(t.Context(), http.ServerContextKey, &http.Server{WriteTimeout: write})
	}
	require.Equal(t, holdFor, longest(t.Context()))
	require.Equal(t, holdFor, longest(served(0)))
	require.Equal(t, holdFor, longest(served(time.Minute)))
	require.Equal(t, time.Second, longest(served(2*time.Second)))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		require.Equal(t, 2*time.Second, longest(ctx))
	})
}
