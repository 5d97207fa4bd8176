package locktick_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// post sends the request of a scheduler for a tick, and returns the status, the outcome and the body.
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

func TestTheResponseSaysWhatHasBecomeOfTheTick(t *testing.T) {
	tick := lock.Tick(noon)
	for name, test := range map[string]struct {
		before  func(t *testing.T, l *lock.Lock, g *locktick.Guard)
		tick    string
		fails   error
		status  int
		outcome string
		body    map[string]string // more than the outcome, the component and the job
		ran     bool
	}{
		"it ran": {tick: tick, status: 200, outcome: "ran", body: map[string]string{"tick": tick}, ran: true},
		"it failed": {tick: tick, fails: errors.New("the password is 123"), status: 500, outcome: "ran", ran: true,
			body: map[string]string{"tick": tick, "error": "the job has failed; the report of this instance says how"}},
		"another has run it": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t, l.Lock("shop", "other", "report", tick, time.Hour))
				require.NoError(t, l.Unlock("shop", "other", "report", tick))
			},
			tick: tick, status: 200, outcome: "already run", body: map[string]string{"tick": tick, "by": "other", "since": ""},
		},
		"another is at an earlier one": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) {
				require.NoError(t, l.Lock("shop", "other", "report", lock.Tick(noon.Add(-time.Hour)), time.Hour))
			},
			tick: tick, status: 423, outcome: "held", body: map[string]string{"tick": tick, "by": "other", "since": ""},
		},
		"it is disabled": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) { require.NoError(t, l.Disable("shop", "report")) },
			tick:   tick, status: 409, outcome: "disabled", body: map[string]string{"tick": tick},
		},
		"there is no database": {
			before: func(t *testing.T, l *lock.Lock, g *locktick.Guard) { g.Lock = lock.New(nil) },
			tick:   tick, status: 503, outcome: "failed",
			body: map[string]string{"tick": tick, "error": "the lock could not be asked for; the report of this instance says why"},
		},
		"the tick is missing": {status: 400, outcome: "bad request",
			body: map[string]string{"error": "the header Tick, which names the tick, is missing"}},
		"the tick is no time": {tick: "noon", status: 400, outcome: "bad request",
			body: map[string]string{"error": `the header Tick, "noon", is not a time like 2006-01-02T15:04:05Z`}},
		"the tick is a reading of a clock": {tick: "2026-03-29T12:00:00.7Z", status: 400, outcome: "bad request",
			body: map[string]string{"error": `the header Tick, "2026-03-29T12:00:00.7Z", is not a whole second: it has to be the scheduled time, not that of the request`}},
		"the tick is the zero time": {tick: "0001-01-01T00:00:00Z", status: 400, outcome: "bad request",
			body: map[string]string{"error": "the tick of the request is the zero time"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := lock.NewLocal(nil)
			g, _ := guard(l)
			if test.before != nil {
				test.before(t, l, &g)
			}
			ran := false
			status, outcome, body := post(t, g.Handler(locktick.FromHeader("Tick"), func(context.Context) error {
				ran = true
				return test.fails
			}), test.tick)
			require.Equal(t, test.status, status)
			require.Equal(t, test.outcome, outcome)
			require.Equal(t, test.ran, ran)
			wanted := map[string]string{"outcome": test.outcome, "component": "shop", "job": "report"}
			for k, v := range test.body {
				wanted[k] = v
			}
			if since, ok := wanted["since"]; ok {
				require.NotEqual(t, since, body["since"])
				body["since"] = ""
			}
			require.Equal(t, wanted, body)
		})
	}
}

func TestTheMiddlewareLeavesTheResponseToTheJob(t *testing.T) {
	g, _ := guard(lock.NewLocal(nil))
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
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "already run", outcome)
	require.Equal(t, "2026-03-29T12:00:00Z", body["tick"])
}

func TestTheContextOfARequestEndsTheJob(t *testing.T) {
	g, _ := guard(lock.NewLocal(nil))
	ctx, gone := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	r.Header.Set("Tick", lock.Tick(noon))
	w := httptest.NewRecorder()
	g.Handler(locktick.FromHeader("Tick"), func(ctx context.Context) error {
		gone()
		<-ctx.Done()
		return ctx.Err()
	}).ServeHTTP(w, r)
	require.Equal(t, http.StatusInternalServerError, w.Code)
}

func TestWithoutATickOfTheRequestSpacingKeepsRunsApart(t *testing.T) {
	g, _ := guard(lock.NewLocal(nil))
	g.Job.Spacing = time.Hour
	h := g.Handler(nil, nothing)
	status, outcome, _ := post(t, h, "")
	require.Equal(t, []any{200, "ran"}, []any{status, outcome})
	status, outcome, _ = post(t, h, "")
	require.Equal(t, []any{200, "already run"}, []any{status, outcome})
}
