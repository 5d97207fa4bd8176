package lockhttp_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// Nothing runs that nobody has asked for.
func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

func anything(*http.Request, lockhttp.Action) error { return nil }

// ask sends a request to a handler, with headers given as names and values.
func ask(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// post sends a change as the page does.
func post(h http.Handler, body string, headers ...string) *httptest.ResponseRecorder {
	own := []string{"Content-Type", "application/json", "Sec-Fetch-Site", "same-origin"}
	return ask(h, "POST", "/", body, append(own, headers...)...)
}

// look returns the state that a handler shows.
func look(t *testing.T, h http.Handler) lockhttp.State {
	t.Helper()
	w := ask(h, "GET", "/?format=json", "")
	require.Equal(t, 200, w.Code, w.Body)
	return decode[lockhttp.State](t, w)
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v), w.Body)
	return v
}

func TestEachRequestHasItsAnswer(t *testing.T) {
	const page, asJSON, text = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
	l, _ := locktest.New()
	for _, c := range []struct {
		name           string
		method, target string
		headers        []string
		code           int
		contentType    string
	}{
		{"the page", "GET", "/", nil, 200, page},
		{"the page of a browser", "GET", "/", []string{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"}, 200, page},
		{"the page, asked for by name", "GET", "/?format=html", []string{"Accept", "application/json"}, 200, page},
		{"whether the page is there", "HEAD", "/", nil, 200, page},
		{"JSON", "GET", "/?format=json", nil, 200, asJSON},
		{"JSON by its path", "GET", "/json", nil, 200, asJSON},
		{"JSON by its media type", "GET", "/", []string{"Accept", "application/json"}, 200, asJSON},
		{"HTML rather than JSON", "GET", "/", []string{"Accept", "text/html, application/json"}, 200, page},
		{"a prefix that ends like the path of the JSON", "GET", "/json/", nil, 200, page},
		{"another format", "GET", "/?format=xml", nil, 400, text},
		{"PUT", "PUT", "/", nil, 405, text},
		{"DELETE", "DELETE", "/", nil, 405, text},
		{"OPTIONS, as before a request of another origin", "OPTIONS", "/", nil, 405, text},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ask(lockhttp.Handler(l), c.method, c.target, "", c.headers...)
			require.Equal(t, c.code, w.Code, w.Body)
			require.Equal(t, c.contentType, w.Header().Get("Content-Type"))
			if c.code == 405 {
				require.Equal(t, "GET, HEAD, POST", w.Header().Get("Allow"))
			}
		})
	}
}

func TestEveryAnswerIsProtected(t *testing.T) {
	l, _ := locktest.New()
	for _, w := range []*httptest.ResponseRecorder{
		ask(lockhttp.Handler(l), "GET", "/", ""),
		ask(lockhttp.Handler(l), "GET", "/json", ""),
		ask(lockhttp.Handler(l), "PUT", "/", ""),
		post(lockhttp.Handler(l), "{}"),
	} {
		for name, value := range map[string]string{
			"Cache-Control":                "no-store",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Referrer-Policy":              "no-referrer",
			"Vary":                         "Accept",
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Access-Control-Allow-Origin":  "",
		} {
			require.Equal(t, value, w.Header().Get(name), name)
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'",
			"form-action 'none'", "require-trusted-types-for 'script'"} {
			require.Contains(t, policy, part)
		}
		require.NotContains(t, policy, "unsafe")
	}
}

// The policy allows what is in the page and there is nothing in it that it would have to allow besides.
func TestThePageIsSelfContained(t *testing.T) {
	l, _ := locktest.New()
	w := ask(lockhttp.Handler(l), "GET", "/", "")
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	for _, tag := range []string{"script", "style"} {
		found := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(page, -1)
		require.Len(t, found, 1, tag)
		sum := sha256.Sum256([]byte(found[0][1]))
		require.Contains(t, policy, tag+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	require.NotRegexp(t, `(?i)<[^>]*\s(on\w+|style|src)\s*=`, page)
	require.NotRegexp(t, `https?://|@import|url\(`, page)
	require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b`, page)
}

func TestThePageIsTheSameUnderEachPrefix(t *testing.T) {
	l, _ := locktest.New()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
	mux := http.NewServeMux()
	mux.Handle("/debug/locks/", h)
	mux.Handle("/exactly", h)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", h))
	mux.Handle("/bare/", http.StripPrefix("/bare/", h))
	for _, prefix := range []string{"/debug/locks/", "/exactly", "/stripped/", "/bare/"} {
		t.Run(prefix, func(t *testing.T) {
			require.Contains(t, ask(mux, "GET", prefix, "").Body.String(), "<title>Locks</title>")
			require.Equal(t, "backup", decode[lockhttp.State](t, ask(mux, "GET", prefix+"?format=json", "")).Locks[0].Job)
			w := ask(mux, "POST", prefix, `{"action":"disable","component":"shop","job":"backup"}`, "Content-Type", "application/json")
			require.Equal(t, "disabled", decode[lockhttp.Result](t, w).Outcome)
			if strings.HasSuffix(prefix, "/") {
				require.Len(t, decode[lockhttp.State](t, ask(mux, "GET", prefix+"json", "")).Locks, 1)
			}
		})
	}
}

func TestTheJSONHasItsFields(t *testing.T) {
	l, clock := locktest.New()
	ctx := context.Background()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-1", "report", "run-2", time.Hour))
	require.NoError(t, l.Unlock("shop", "instance-1", "report", "run-2"))
	require.NoError(t, l.Disable("shop", "rest"))
	since := clock.Now().UTC().Truncate(time.Microsecond)
	clock.Advance(90 * time.Second)
	status, err := l.Status(ctx, "shop", "backup")
	require.NoError(t, err)

	h := lockhttp.New(l, lockhttp.Options{MaxDuration: func(component, job string) time.Duration {
		require.Equal(t, "shop", component)
		return map[string]time.Duration{"backup": time.Minute, "report": -1}[job]
	}})
	var got map[string]any
	require.NoError(t, json.Unmarshal(ask(h, "GET", "/json", "").Body.Bytes(), &got))
	at, err := time.Parse(time.RFC3339, got["looked_at"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)
	require.GreaterOrEqual(t, got["looked_seconds_ago"], 0.)
	delete(got, "looked_at")
	delete(got, "looked_seconds_ago")
	holder := func(run string) map[string]any {
		return map[string]any{"component_id": "instance-1", "job_id": run, "since": since.Format(time.RFC3339Nano), "age_seconds": 90.,
			"token": fmt.Sprint(status.Token)}
	}
	require.Equal(t, map[string]any{
		"changes": false,
		"locks": []any{
			map[string]any{"component": "shop", "job": "backup", "enabled": true, "held": true, "expired": true,
				"holder": holder("run-1"), "max_duration_seconds": 60.},
			map[string]any{"component": "shop", "job": "report", "enabled": true, "held": false, "expired": false, "last": holder("run-2")},
			map[string]any{"component": "shop", "job": "rest", "enabled": false, "held": false, "expired": false},
		},
		"handovers": []any{},
	}, got)
}

func TestNamesAreDataInTheJSON(t *testing.T) {
	l, _ := locktest.New()
	long := strings.Repeat("x", 100_000)
	for _, name := range []string{`<script>alert(1)</script>`, `</script>`, "\u202egnp.exe", "", long, `"'` + "\n\u2028"} {
		require.NoError(t, l.Lock(name, name, name, name, 0))
	}
	w := ask(lockhttp.Handler(l), "GET", "/json", "")
	require.NotContains(t, w.Body.String(), "<")
	for _, entry := range decode[lockhttp.State](t, w).Locks {
		require.Equal(t, entry.Component, entry.Job)
		if entry.Job != "" {
			require.Equal(t, entry.Component, entry.Holder.ComponentID)
			require.Equal(t, entry.Component, entry.Holder.JobID)
		}
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	no := func(kinds ...lockhttp.ActionKind) func(*http.Request, lockhttp.Action) error {
		return func(r *http.Request, a lockhttp.Action) error {
			for _, kind := range kinds {
				if a.Kind == kind {
					return fmt.Errorf("%s may not %s %s/%s", r.Header.Get("User"), a.Kind, a.ComponentName, a.JobName)
				}
			}
			return nil
		}
	}
	const disable = `{"action":"disable","component":"shop","job":"backup"}`
	const enable = `{"action":"enable","component":"shop","job":"backup"}`
	const release = `{"action":"release","component":"shop","job":"backup","component_id":"instance-1","job_id":"run-1"}`
	for _, c := range []struct {
		name      string
		authorize func(*http.Request, lockhttp.Action) error
		body      string // "" is a look
		code      int
		says      string
	}{
		{"without a hook anybody looks", nil, "", 200, `"changes":false`},
		{"without a hook nobody disables", nil, disable, 403, "Authorize is nil"},
		{"without a hook nobody enables", nil, enable, 403, "Authorize is nil"},
		{"without a hook nobody releases", nil, release, 403, "Authorize is nil"},
		{"a hook lets look", anything, "", 200, `"changes":true`},
		{"a hook lets disable", anything, disable, 200, `"outcome":"disabled"`},
		{"a hook lets enable", anything, enable, 200, `"outcome":"enabled"`},
		{"a hook lets release", anything, release, 200, `"outcome":"released"`},
		{"a hook refuses a look", no(lockhttp.Look), "", 403, "Ann may not look /"},
		{"a hook refuses to disable", no(lockhttp.Disable), disable, 403, "Ann may not disable shop/backup"},
		{"a hook refuses to enable", no(lockhttp.Enable), enable, 403, "Ann may not enable shop/backup"},
		{"a hook refuses to release", no(lockhttp.Release), release, 403, "Ann may not release shop/backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := locktest.New()
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			before, err := l.List(context.Background())
			require.NoError(t, err)
			h := lockhttp.New(l, lockhttp.Options{Authorize: c.authorize})
			w := ask(h, "GET", "/json", "", "User", "Ann")
			if c.body != "" {
				w = post(h, c.body, "User", "Ann")
			}
			require.Equal(t, c.code, w.Code)
			require.Contains(t, w.Body.String(), c.says)
			if c.code != 200 {
				now, err := l.List(context.Background())
				require.NoError(t, err)
				now[0].Holder.Age = before[0].Holder.Age
				require.Equal(t, before, now)
			}
		})
	}
	l, _ := locktest.New()
	w := ask(lockhttp.New(l, lockhttp.Options{Authorize: no(lockhttp.Look)}), "GET", "/", "", "User", "Ann")
	require.Equal(t, 403, w.Code)
	require.Equal(t, "Ann may not look /\n", w.Body.String())
}

// Whatever another site makes a browser send, it changes nothing.
func TestAnotherSiteChangesNothing(t *testing.T) {
	trusting := new(http.CrossOriginProtection)
	require.NoError(t, trusting.AddTrustedOrigin("https://ops.example"))
	for _, c := range []struct {
		name    string
		headers []string
		trusts  *http.CrossOriginProtection
		code    int
	}{
		{"the page itself", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, nil, 200},
		{"the page itself, in an old browser", []string{"Origin", "http://example.com"}, nil, 200},
		{"no browser", nil, nil, 200},
		{"another site", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, nil, 403},
		{"a sister of the site", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://evil.example.com"}, nil, 403},
		{"another site, in an old browser", []string{"Origin", "https://evil.example"}, nil, 403},
		{"a site without a name", []string{"Origin", "null"}, nil, 403},
		{"an origin that is trusted", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://ops.example"}, trusting, 200},
		{"one that is not", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, trusting, 403},
		{"a form", []string{"Content-Type", "application/x-www-form-urlencoded"}, nil, 415},
		{"what a form can send that looks like JSON", []string{"Content-Type", "text/plain"}, nil, 415},
		{"nothing that says what it is", []string{"Content-Type", ""}, nil, 415},
		{"JSON with a charset", []string{"Content-Type", "application/json; charset=utf-8"}, nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := locktest.New()
			h := lockhttp.New(l, lockhttp.Options{Authorize: anything, CrossOrigin: c.trusts})
			w := ask(h, "POST", "/", `{"action":"disable","component":"shop","job":"backup"}`,
				append([]string{"Content-Type", "application/json"}, c.headers...)...)
			require.Equal(t, c.code, w.Code, w.Body)
			s, err := l.Status(context.Background(), "shop", "backup")
			require.NoError(t, err)
			require.Equal(t, c.code != 200, s.Enabled)
		})
	}
}

func TestAChangeThatMakesNoSenseIsRefused(t *testing.T) {
	l, _ := locktest.New()
	h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
	for _, c := range []struct {
		name, body string
		code       int
		says       string
	}{
		{"nothing", ``, 400, "not a change: EOF"},
		{"no JSON", `action=disable`, 400, "not a change"},
		{"no action", `{"component":"shop","job":"backup"}`, 400, `the action "" is not enable, disable or release`},
		{"another action", `{"action":"drop","component":"shop","job":"backup"}`, 400, `the action "drop"`},
		{"a look", `{"action":"look","component":"shop","job":"backup"}`, 400, `the action "look"`},
		{"no component", `{"action":"disable","job":"backup"}`, 400, "to disable needs the field component"},
		{"no job", `{"action":"enable","component":"shop"}`, 400, "to enable needs the field job"},
		{"no holder", `{"action":"release","component":"shop","job":"backup","job_id":"r"}`, 400, "needs the field component_id"},
		{"no run", `{"action":"release","component":"shop","job":"backup","component_id":"i"}`, 400, "needs the field job_id"},
		{"a holder of what has none", `{"action":"disable","component":"a","job":"b","component_id":"i"}`, 400, "not about its holder"},
		{"a field too many", `{"action":"disable","component":"shop","job":"backup","force":true}`, 400, `unknown field "force"`},
		{"two at once", `{"action":"disable","component":"a","job":"b"}{}`, 400, "more in the body than one change"},
		{"a NUL", `{"action":"disable","component":"shop","job":"back\u0000up"}`, 400, "the field job has a NUL"},
		{"too much", `{"action":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(h, c.body)
			require.Equal(t, c.code, w.Code)
			require.Contains(t, decode[lockhttp.Result](t, w).Error, c.says)
			all, err := l.List(context.Background())
			require.NoError(t, err)
			require.Empty(t, all)
		})
	}
	w := post(h, fmt.Sprintf(`{"action":"disable","component":%q,"job":"backup"}`, strings.Repeat("x", 100_000)))
	require.Equal(t, 200, w.Code, "a name may be long")
}

func TestAReleaseIsOfTheHolderThatWasSeen(t *testing.T) {
	type row = struct {
		name string
		// What happens between the look and the release, and whether the release names the token that was seen.
		meanwhile func(t *testing.T, l *lock.Lock, clock *locktest.Clock)
		token     bool

		code    int
		result  lockhttp.Result // but for the error's text and the holder's times
		says    string
		held    bool
		holders string
	}
	nothing := func(*testing.T, *lock.Lock, *locktest.Clock) {}
	renews := func(t *testing.T, l *lock.Lock, clock *locktest.Clock) {
		clock.Advance(2 * time.Hour)
		require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	}
	unlocks := func(t *testing.T, l *lock.Lock, _ *locktest.Clock) {
		require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	}
	loses := func(t *testing.T, l *lock.Lock, clock *locktest.Clock) {
		clock.Advance(2 * time.Hour)
		require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	}
	runsAgain := func(t *testing.T, l *lock.Lock, _ *locktest.Clock) {
		require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
		require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-2", time.Hour))
	}
	for _, c := range []row{
		{"nothing happened", nothing, true, 200, lockhttp.Result{Outcome: "released"}, "", false, "instance-1"},
		{"nothing happened, without token", nothing, false, 200, lockhttp.Result{Outcome: "released"}, "", false, "instance-1"},
		{"the holder renewed", renews, true, 409, lockhttp.Result{Reason: "renewed"}, "it is alive", true, "instance-1"},
		{"the holder renewed, and that is known", renews, false, 200, lockhttp.Result{Outcome: "released"}, "", false, "instance-1"},
		{"the holder unlocked", unlocks, true, 200, lockhttp.Result{Outcome: "free"}, "", false, "instance-1"},
		{"another took over", loses, true, 409, lockhttp.Result{Reason: "held"}, `"instance-2", job ID "run-2"`, true, "instance-2"},
		{"another took over, without token", loses, false, 409, lockhttp.Result{Reason: "held"}, `"instance-2"`, true, "instance-2"},
		{"another run of the instance", runsAgain, true, 409, lockhttp.Result{Reason: "held"}, `job ID "run-2"`, true, "instance-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, clock := locktest.New()
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
			seen := look(t, h).Locks[0].Holder
			change := map[string]string{"action": "release", "component": "shop", "job": "backup",
				"component_id": seen.ComponentID, "job_id": seen.JobID}
			if c.token {
				change["token"] = seen.Token
			}
			body, err := json.Marshal(change)
			require.NoError(t, err)
			c.meanwhile(t, l, clock)

			w := post(h, string(body))
			require.Equal(t, c.code, w.Code, w.Body)
			got := decode[lockhttp.Result](t, w)
			require.Contains(t, got.Error, c.says)
			status, err := l.Status(context.Background(), "shop", "backup")
			require.NoError(t, err)
			if c.code == 409 {
				require.Equal(t, status.Holder.ComponentID, got.Holder.ComponentID)
				require.Equal(t, status.Holder.JobID, got.Holder.JobID)
				require.Equal(t, fmt.Sprint(status.Token), got.Holder.Token)
			}
			got.Error, got.Holder = "", nil
			require.Equal(t, c.result, got)
			require.Equal(t, c.held, status.Locked)
			require.Equal(t, c.holders, status.Holder.ComponentID)
			now := look(t, h).Locks[0]
			require.Equal(t, c.held, now.Held, "who looks after a change sees it")
		})
	}
}

func TestADatabaseThatFailsIsShownWithWhatWasKnown(t *testing.T) {
	db := dbtest.Engine{Driver: "postgres", DSN: dbtest.PostgresDSN()}.Open(t)
	l := lock.New(db)
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
	before := look(t, h)
	require.NoError(t, db.Close())
	w := post(h, `{"action":"disable","component":"shop","job":"backup"}`)
	require.Equal(t, 503, w.Code)
	require.Contains(t, decode[lockhttp.Result](t, w).Error, "database is closed")
	w = post(h, `{"action":"release","component":"shop","job":"backup","component_id":"instance-1","job_id":"run-1"}`)
	require.Equal(t, 503, w.Code)

	w = ask(h, "GET", "/json", "")
	require.Equal(t, 503, w.Code)
	now := decode[lockhttp.State](t, w)
	require.Contains(t, now.Error, "database is closed")
	require.Greater(t, now.Seconds, before.Seconds)
	now.Error, now.Seconds = "", before.Seconds
	require.Equal(t, before, now)
	require.Equal(t, 200, ask(h, "GET", "/", "").Code, "the page itself needs no database")
	require.Equal(t, 503, ask(h, "HEAD", "/json", "").Code)
}

// doesNothing is a Storage that a service uses where its database is switched off.
type doesNothing struct{}

func (doesNothing) Exec(string, ...interface{}) (sql.Result, error) { return nil, nil }
func (doesNothing) QueryRow(string, ...interface{}) *sql.Row        { return nil }

// broken is a Storage that panics when it is asked.
type broken struct{ doesNothing }

func (broken) Query(string, ...interface{}) (*sql.Rows, error) { panic("out of order") }

func TestALockWithoutADatabaseIsAnError(t *testing.T) {
	for _, c := range []struct {
		name string
		l    *lock.Lock
		says string
	}{
		{"no lock", nil, "there is no Storage"},
		{"the zero lock", &lock.Lock{}, "there is no Storage"},
		{"no Storage", lock.New(nil), "there is no Storage"},
		{"a Storage that can't list", lock.New(doesNothing{}), "neither QueryContext nor Query"},
		{"a Storage that panics", lock.New(broken{}), "the Storage panicked: out of order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := lockhttp.New(c.l, lockhttp.Options{Authorize: anything})
			w := ask(h, "GET", "/json", "")
			require.Equal(t, 503, w.Code)
			s := decode[lockhttp.State](t, w)
			require.Contains(t, s.Error, c.says)
			require.Nil(t, s.LookedAt)
			require.Contains(t, w.Body.String(), `"locks":[],"handovers":[]`)
			w = post(h, `{"action":"release","component":"shop","job":"backup","component_id":"i","job_id":"r"}`)
			require.Equal(t, 503, w.Code)
		})
	}
}

func TestEventsTeachDurationsAndTakeovers(t *testing.T) {
	ctx := context.Background()
	var events lockhttp.Events
	l := lock.NewLocalWith(nil, lock.Options{Observer: events.Observe})
	h := lockhttp.New(l, lockhttp.Options{
		Events: &events, Authorize: anything,
		MaxDuration: func(_, job string) time.Duration { return map[string]time.Duration{"report": time.Hour}[job] },
	})
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Microsecond))
	require.NoError(t, l.Lock("shop", "instance-1", "report", "run-1", time.Minute))
	first, err := l.Status(ctx, "shop", "backup")
	require.NoError(t, err)
	require.Empty(t, look(t, h).Handovers)

	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Microsecond))
	second, err := l.Status(ctx, "shop", "backup")
	require.NoError(t, err)
	require.Equal(t, 200, post(h, `{"action":"enable","component":"shop","job":"backup"}`).Code) // so that it looks again
	s := look(t, h)
	require.Equal(t, 1e-6, s.Locks[0].MaxDuration)
	require.True(t, s.Locks[0].Expired)
	require.Equal(t, 3600., s.Locks[1].MaxDuration, "what the service says is preferred")
	require.Len(t, s.Handovers, 1, "the takeover, which is not told a second time as a difference of two looks")
	require.WithinDuration(t, time.Now(), s.Handovers[0].At, time.Minute)
	s.Handovers[0].At = time.Time{}
	require.Equal(t, lockhttp.Handover{
		Component: "shop", Job: "backup", Seen: "event",
		From: lockhttp.Run{ComponentID: "instance-1", JobID: "run-1", Since: first.Holder.Since},
		To:   lockhttp.Run{ComponentID: "instance-2", JobID: "run-2", Since: second.Holder.Since},
	}, s.Handovers[0])

	require.Error(t, l.Lock("shop", "instance-3", "backup", "run-3", 0))
	require.NoError(t, l.Unlock("shop", "instance-2", "backup", "run-2"))
	require.Zero(t, look(t, h).Locks[0].MaxDuration, "whoever asked last has stated none")
}

func TestEventsAreBounded(t *testing.T) {
	var events lockhttp.Events
	l, _ := locktest.New()
	h := lockhttp.New(l, lockhttp.Options{Events: &events})
	for i := range 60 {
		events.Observe(context.Background(), lock.Event{Kind: lock.TakenOver, JobName: fmt.Sprint(i)})
	}
	s := look(t, h)
	require.Len(t, s.Handovers, 50)
	require.Equal(t, "59", s.Handovers[0].Job)
}

func TestWithTwoLooksAHandoverIsSeen(t *testing.T) {
	l, clock := locktest.New()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-1", "released", "run-1", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-1", "renewed", "run-1", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-1", "held twice", "run-1", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-1", "free", "run-1", time.Hour))
	require.NoError(t, l.Unlock("shop", "instance-1", "free", "run-1"))
	h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
	before := look(t, h)
	clock.Advance(2 * time.Hour)
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	require.NoError(t, l.Unlock("shop", "instance-1", "released", "run-1"))
	require.NoError(t, l.Lock("shop", "instance-1", "renewed", "run-1", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-2", "new", "run-2", time.Hour))
	require.NoError(t, l.Lock("shop", "instance-2", "held twice", "run-2", time.Hour))
	require.NoError(t, l.Unlock("shop", "instance-2", "held twice", "run-2"))
	require.NoError(t, l.Lock("shop", "instance-2", "free", "run-2", time.Hour))
	require.Equal(t, 200, post(h, `{"action":"enable","component":"shop","job":"backup"}`).Code) // so that it looks again
	now := look(t, h)
	require.Len(t, now.Handovers, 1)
	got := now.Handovers[0]
	require.Equal(t, "looks", got.Seen)
	require.Equal(t, "backup", got.Job)
	require.Equal(t, "instance-1", got.From.ComponentID)
	require.Equal(t, "instance-2", got.To.ComponentID)
	require.True(t, got.After.Equal(*before.LookedAt))
	require.True(t, got.At.Equal(*now.LookedAt))
}

func Example() {
	var events lockhttp.Events
	l := lock.NewLocalWith(nil, lock.Options{Observer: events.Observe}) // a service has lock.NewWith(db, …)
	onlyOperators := func(r *http.Request, a lockhttp.Action) error {
		if user, password, _ := r.BasicAuth(); a.Kind == lockhttp.Look || user == "ops" && password == "secret" {
			return nil
		}
		return errors.New("only operators change anything here")
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/locks/", lockhttp.New(l, lockhttp.Options{Events: &events, Authorize: onlyOperators}))
	server := httptest.NewServer(mux)
	defer server.Close()

	if err := l.Lock("shop", "instance-1", "backup", "run-1", time.Hour); err != nil {
		fmt.Println(err)
		return
	}
	// The page is for a browser; a script takes the JSON.
	answer, err := http.Get(server.URL + "/debug/locks/?format=json")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	var state lockhttp.State
	if err := json.NewDecoder(answer.Body).Decode(&state); err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range state.Locks {
		fmt.Println(l.Job, l.Held, l.Holder.ComponentID, l.MaxDuration)
	}

	refused, err := http.Post(server.URL+"/debug/locks/", "application/json",
		strings.NewReader(`{"action":"disable","component":"shop","job":"backup"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer refused.Body.Close()
	body, _ := io.ReadAll(refused.Body)
	fmt.Printf("%d %s", refused.StatusCode, body)
	// Output:
	// backup true instance-1 3600
	// 403 {"error":"only operators change anything here"}
}
