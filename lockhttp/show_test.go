package lockhttp_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

func TestHandler_answers(t *testing.T) {
	const page, text = "text/html; charset=utf-8", "text/plain; charset=utf-8"
	const asJSON, browser = "application/json", "text/html,application/xhtml+xml,*/*;q=0.8"
	l, _ := memory()
	for _, c := range []struct {
		name           string
		method, target string
		accept         string
		code           int
		contentType    string
	}{
		{"the page", "GET", "/", "", 200, page},
		{"the page of a browser", "GET", "/", browser, 200, page},
		{"the page, asked for by name", "GET", "/?format=html", asJSON, 200, page},
		{"whether the page is there", "HEAD", "/", "", 200, page},
		{"JSON", "GET", "/?format=json", "", 200, asJSON},
		{"JSON by its path", "GET", "/json", "", 200, asJSON},
		{"JSON by its media type", "GET", "/", asJSON, 200, asJSON},
		{"HTML rather than JSON", "GET", "/", "text/html, application/json", 200, page},
		{"a prefix that ends like the path of the JSON", "GET", "/json/", "", 200, page},
		{"another format", "GET", "/?format=xml", "", 400, text},
		{"an unknown state", "GET", "/json?state=well", "", 400, asJSON},
		{"an unknown order", "GET", "/json?sort=colour", "", 400, asJSON},
		{"after no time", "GET", "/json?after=noon", "", 400, asJSON},
		{"no locks", "GET", "/json?limit=0", "", 400, asJSON},
		{"too many locks", "GET", "/json?limit=5001", "", 400, asJSON},
		{"a limit that is no number", "GET", "/json?limit=all", "", 400, asJSON},
		{"PUT", "PUT", "/", "", 405, text},
		{"DELETE", "DELETE", "/", "", 405, text},
		{"OPTIONS, as before a request of another origin", "OPTIONS", "/", "", 405, text},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ask(lockhttp.Handler(l), c.method, c.target, "", "Accept", c.accept)
			require.Equal(t, c.code, w.Code, w.Body)
			require.Equal(t, c.contentType, w.Header().Get("Content-Type"))
			if c.code == 405 {
				require.Equal(t, "GET, HEAD, POST", w.Header().Get("Allow"))
			}
		})
	}
}

func TestHandler_headers(t *testing.T) {
	l, _ := memory()
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
		for _, part := range []string{"default-src 'none'", "connect-src 'self'",
			"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
			"require-trusted-types-for 'script'"} {
			require.Contains(t, policy, part)
		}
		require.NotContains(t, policy, "unsafe")
	}
}

// The policy allows what is in the page, which has nothing that it would have to allow besides.
func TestHandler_page_is_self_contained(t *testing.T) {
	l, _ := memory()
	w := ask(lockhttp.Handler(l), "GET", "/", "")
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	for _, tag := range []string{"script", "style"} {
		element := regexp.MustCompile(`(?s)<` + tag + `>(.*?)</` + tag + `>`)
		found := element.FindAllStringSubmatch(page, -1)
		require.Len(t, found, 1, tag)
		sum := sha256.Sum256([]byte(found[0][1]))
		hash := base64.StdEncoding.EncodeToString(sum[:])
		require.Contains(t, policy, tag+"-src 'sha256-"+hash+"'")
	}
	require.NotRegexp(t, `(?i)<[^>]*\s(on\w+|style|src)\s*=`, page)
	require.NotRegexp(t, `https?://|@import|url\(`, page)
	require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b`, page)
}

func TestHandler_prefixes(t *testing.T) {
	l, _ := memory()
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
			s := decode[lockhttp.State](t, ask(mux, "GET", prefix+"?format=json", ""))
			require.Equal(t, "backup", s.Locks[0].Job)
			w := ask(mux, "POST", prefix, `{"action":"disable","component":"shop","job":"backup"}`,
				"Content-Type", "application/json")
			require.Equal(t, "disabled", decode[lockhttp.Result](t, w).Outcome)
			if strings.HasSuffix(prefix, "/") {
				s = decode[lockhttp.State](t, ask(mux, "GET", prefix+"json", ""))
				require.Len(t, s.Locks, 1)
			}
		})
	}
}

func TestHandler_query(t *testing.T) {
	l, c := memory()
	for i := range 5010 {
		component, run := fmt.Sprint("component-", i%2), fmt.Sprint("run-", i)
		require.NoError(t, l.Lock(component, "Instance", fmt.Sprintf("job-%04d", i), run, 0))
		if i < 4 {
			c.Advance(time.Hour)
		}
	}
	running := c.Now().Add(-time.Minute).Format(time.RFC3339) + "/R"
	require.NoError(t, l.Unlock("component-1", "Instance", "job-0001", "run-1"))
	require.NoError(t, l.Disable("component-1", "job-0003"))
	require.NoError(t, l.Lock("other", "a", "running", running, 0))
	h := lockhttp.New(l, lockhttp.Options{TTL: func(_, job string) time.Duration {
		return map[string]time.Duration{"job-0000": time.Hour}[job]
	}})
	for _, c := range []struct {
		query    string
		n, among int
		first    []string
	}{
		{"", 500, 5011, []string{"job-0000", "job-0003", "job-0002"}}, // expired, disabled, the rest
		{"limit=1", 1, 5011, []string{"job-0000"}},
		{"limit=5000", 5000, 5011, nil},
		{"state=trouble", 2, 2, []string{"job-0000", "job-0003"}},
		{"state=expired", 1, 1, []string{"job-0000"}},
		{"state=late", 0, 0, nil},
		{"state=free", 1, 1, []string{"job-0001"}},
		{"state=disabled&search=job", 1, 1, []string{"job-0003"}},
		{"search=COMPONENT-1+run-44", 55, 55, []string{"job-0441"}},
		{"search=instance&limit=2", 2, 5010, nil},
		{"search=free", 1, 1, []string{"job-0001"}},
		{"search=nothing", 0, 0, nil},
		{"sort=component", 500, 5011, []string{"job-0000", "job-0002", "job-0004"}},
		{"sort=-job", 500, 5011, []string{"running", "job-5009", "job-5008"}},
		{"sort=holder", 500, 5011, []string{"job-0000"}},
		{"sort=-holder&search=running", 1, 1, []string{"running"}},
		{"sort=-age", 500, 5011, []string{"job-0000", "job-0001", "job-0002"}},
		{"sort=-running", 500, 5011, []string{"running"}},
	} {
		t.Run(c.query, func(t *testing.T) {
			s := look(t, h, c.query)
			require.Len(t, s.Locks, c.n)
			require.Equal(t, c.among, s.Matching)
			for i, job := range c.first {
				require.Equal(t, job, s.Locks[i].Job)
			}
			require.Equal(t, map[string]int{"all": 5011, "trouble": 2, "expired": 1, "late": 0,
				"future": 0, "failing": 0, "disabled": 1, "held": 5010, "free": 1}, s.Counts)
			require.False(t, s.More)
		})
	}
}
