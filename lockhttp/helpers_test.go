package lockhttp_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// start is when a test's clock begins.
var start = time.Date(2026, 11, 25, 6, 0, 0, 0, time.UTC)

// memory returns a Lock in memory that goes by a clock, and tells observers.
func memory(observers ...func(context.Context, lock.Event)) (*lock.Lock, *locktest.Clock) {
	l, clock := locktest.NewWith(lock.Options{Observer: lock.Observers(observers...)})
	clock.Advance(start.Sub(clock.Now()))
	return l, clock
}

func status(t *testing.T, l *lock.Lock) lock.Status {
	t.Helper()
	s, err := l.Status(t.Context(), "shop", "backup")
	require.NoError(t, err)
	return s
}

func anything(*http.Request, lockhttp.Action) error { return nil }

// ask sends a request to a handler, with headers given as names and values.
func ask(h http.Handler, method, target, body string,
	headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// post sends a command as the page does.
func post(h http.Handler, body string, headers ...string) *httptest.ResponseRecorder {
	own := []string{"Content-Type", "application/json", "Sec-Fetch-Site", "same-origin"}
	return ask(h, "POST", "/", body, append(own, headers...)...)
}

// look returns the state that a handler shows.
func look(t *testing.T, h http.Handler, query ...string) lockhttp.State {
	t.Helper()
	w := ask(h, "GET", "/?format=json&"+strings.Join(query, "&"), "")
	require.Equal(t, 200, w.Code, w.Body)
	return decode[lockhttp.State](t, w)
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v), w.Body)
	return v
}
