package locktick_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// post sends the request of a scheduler for a tick, and returns the status, the outcome and the
// body.
func post(t *testing.T, h http.Handler, tick string) (int, string, map[string]string) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/jobs/report", nil)
	if tick != "" {
		r.Header.Set("Tick", tick)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var body map[string]string
	if w.Header().Get("Content-Type") == "application/json" {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		require.Equal(t, w.Header().Get(locktick.OutcomeHeader), body["outcome"])
	}
	return w.Code, w.Header().Get(locktick.OutcomeHeader), body
}

func TestGuard_Handler(t *testing.T) {
	tick := ticktest.TickName(noon)
	locked := func(l *lock.Lock, run string) error {
		return l.Lock("shop", "other", "report", run,
			time.Hour)
	}
	unlocked := func(l *lock.Lock, run string) error {
		return errors.Join(locked(l, run), l.Unlock("shop", "other", "report", run))
	}
	for name, test := range map[string]struct {
		before  func(l *lock.Lock, g *locktick.Guard) error
		tick    string
		fails   error
		status  int
		outcome string
		body    map[string]string // more than the outcome, the component, the job and the tick
		ran     bool
	}{
		"it ran": {tick: tick, status: 200, outcome: "ran", ran: true},
		"it failed": {tick: tick, fails: errors.New("the password is 123"), status: 500, outcome: "ran",
			ran:  true,
			body: map[string]string{"error": "the job has failed; the report of this instance says how"}},
		"another has run it, well or not": {
			before: func(l *lock.Lock, g *locktick.Guard) error { return unlocked(l, tick) },
			tick:   tick, status: 409, outcome: "already run",
			body: map[string]string{"by": "other", "lock_time": "",
				"error": "it has been run; what came of it is not known here"},
		},
		"another has run it well": {
			before: func(l *lock.Lock, g *locktick.Guard) error {
				g.Job.RetryFailed = true
				return unlocked(l, tick)
			},
			tick: tick, status: 200, outcome: "already run", body: map[string]string{"by": "other",
				"lock_time": ""},
		},
		"another has run a later one": {
			before: func(l *lock.Lock, g *locktick.Guard) error {
				g.Job.RetryFailed = true
				return unlocked(l, ticktest.TickName(noon.Add(time.Hour)))
			},
			tick: tick, status: 409, outcome: "already run",
			body: map[string]string{"by": "other", "lock_time": "",
				"error": "a later tick has been run: this one is not run any more"},
		},
		"another is running it": {
			before: func(l *lock.Lock, g *locktick.Guard) error {
				g.Job.RetryFailed = true
				return locked(l, tick)
			},
			tick: tick, status: 423, outcome: "running", body: map[string]string{"by": "other",
				"lock_time": ""},
		},
		"another is at an earlier one": {
			before: func(l *lock.Lock, g *locktick.Guard) error {
				return locked(l,
					ticktest.TickName(noon.Add(-time.Hour)))
			},
			tick: tick, status: 423, outcome: "held", body: map[string]string{"by": "other",
				"lock_time": ""},
		},
		"it is disabled": {
			before: func(l *lock.Lock, g *locktick.Guard) error { return l.Disable("shop", "report") },
			tick:   tick, status: 409, outcome: "disabled",
		},
		"there is no database": {
			before: func(l *lock.Lock, g *locktick.Guard) error {
				g.Lock = lock.New(nil)
				return nil
			},
			tick: tick, status: 503, outcome: "failed",
			body: map[string]string{"error": "the lock could not be asked for; the report of this " +
				"instance says why"},
		},
		"the tick lies ahead": {tick: "9000-01-01T00:00:00Z", status: 425, outcome: "ahead",
			body: map[string]string{"error": "the tick is ahead of the database's clock"}},
		"the tick is missing": {status: 400, outcome: "bad request",
			body: map[string]string{"error": "the header Tick, which names the tick, is missing"}},
		"the tick is no time": {tick: "noon", status: 400, outcome: "bad request",
			body: map[string]string{"error": `the header Tick, "noon", is not a time ` +
				`like 2006-01-02T15:04:05Z`}},
		"the tick is a reading of a clock": {tick: "2026-03-29T12:00:00.7Z", status: 400,
			outcome: "bad request",
			body: map[string]string{"error": `the header Tick, "2026-03-29T12:00:00.7Z", is not ` +
				`a whole second: it has to be the scheduled time, not that of the request`}},
		"the tick is the zero time": {tick: "0001-01-01T00:00:00Z", status: 400, outcome: "bad request",
			body: map[string]string{"error": "the tick of the request is the zero time"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := lock.NewMemory(lock.Options{})
			g, _ := guard(l)
			if test.before != nil {
				require.NoError(t, test.before(l, &g))
			}
			ran := false
			status, outcome, body := post(t, g.Handler(locktick.FromHeader("Tick"),
				func(context.Context) error {
					ran = true
					return test.fails
				}), test.tick)
			require.Equal(t, test.status, status)
			require.Equal(t, test.outcome, outcome)
			require.Equal(t, test.ran, ran)
			wanted := map[string]string{"outcome": test.outcome, "component": "shop", "job": "report"}
			if status != 400 {
				wanted["tick"] = test.tick
			}
			for k, v := range test.body {
				wanted[k] = v
			}
			if at, ok := wanted["lock_time"]; ok {
				require.NotEqual(t, at, body["lock_time"])
				body["lock_time"] = ""
			}
			require.Equal(t, wanted, body)
		})
	}
}

// A scheduler that repeats failures must not be told of success too early.
func TestGuard_Handler_repeated(t *testing.T) {
	for _, test := range []struct {
		retry bool
		want  []int
		runs  int
	}{
		{false, []int{500, 409, 409}, 1},
		{true, []int{500, 200, 200}, 2},
	} {
		for how, handler := range map[string]func(g locktick.Guard, f func() error) http.Handler{
			"Handler": func(g locktick.Guard, f func() error) http.Handler {
				return g.Handler(locktick.FromHeader("Tick"), func(context.Context) error { return f() })
			},
			"Middleware": func(g locktick.Guard, f func() error) http.Handler {
				return g.Middleware(locktick.FromHeader("Tick"), http.HandlerFunc(func(w http.ResponseWriter,
					_ *http.Request) {
					if err := f(); err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
					}
				}))
			},
		} {
			g, told := guard(lock.NewMemory(lock.Options{}))
			g.Job.RetryFailed = test.retry
			runs := 0
			h := handler(g, func() error {
				if runs++; runs == 1 {
					return errors.New("the printer is on fire")
				}
				return nil
			})
			var got []int
			for range 3 {
				status, _, _ := post(t, h, ticktest.TickName(noon))
				got = append(got, status)
			}
			require.Equal(t, test.want, got, how)
			require.Equal(t, test.runs, runs, how)
			require.Error(t, (*told)[0].Err, how)
		}
	}
}

func TestGuard_Middleware(t *testing.T) {
	g, _ := guard(lock.NewMemory(lock.Options{}))
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, lock.LeaseFrom(r.Context()).Job().JobID)
	})
	h := g.Middleware(locktick.FromHeader("Tick"), next)

	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Tick", "2026-03-29T14:00:00+02:00")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusCreated, w.Code)
	require.Equal(t, "ran", w.Header().Get(locktick.OutcomeHeader))
	require.Equal(t, "2026-03-29T12:00:00Z", w.Body.String())

	status, outcome, body := post(t, h, "2026-03-29T12:00:00Z")
	require.Equal(t, http.StatusConflict, status)
	require.Equal(t, "already run", outcome)
	require.Equal(t, "2026-03-29T12:00:00Z", body["tick"])
}

func TestGuard_Middleware_lost(t *testing.T) {
	for answers, want := range map[bool]int{false: http.StatusInternalServerError,
		true: http.StatusCreated} {
		synctest.Test(t, func(t *testing.T) {
			l := lock.NewMemory(lock.Options{})
			g, _ := guard(l)
			g.Job.TTL = time.Minute
			status, _, _ := post(t, g.Middleware(func(*http.Request) (time.Time, error) {
				return time.Now(),
					nil
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s, err := l.Status(r.Context(), "shop", "report")
				require.NoError(t, err)
				require.NoError(t, l.ForceRelease(r.Context(), "shop", "report", s.Holder))
				<-r.Context().Done()
				if answers {
					w.WriteHeader(http.StatusCreated)
				}
			})), "")
			require.Equal(t, want, status)
		})
	}
}

func TestGuard_Handler_client_gone(t *testing.T) {
	g, _ := guard(lock.NewMemory(lock.Options{}))
	ctx, gone := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	r.Header.Set("Tick", ticktest.TickName(noon))
	w := httptest.NewRecorder()
	g.Handler(locktick.FromHeader("Tick"), func(ctx context.Context) error {
		gone()
		<-ctx.Done()
		return ctx.Err()
	}).ServeHTTP(w, r)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
}

func TestGuard_Handler_Spacing(t *testing.T) {
	g, _ := guard(lock.NewMemory(lock.Options{}))
	g.Job.Spacing = time.Hour
	h := g.Handler(nil, nothing)
	status, outcome, _ := post(t, h, "")
	require.Equal(t, []any{200, "ran"}, []any{status, outcome})
	status, outcome, _ = post(t, h, "")
	require.Equal(t, []any{409, "already run"}, []any{status, outcome})
}
