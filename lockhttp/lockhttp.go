// Package lockhttp shows the locks of a table on a page, like net/http/pprof: who holds what, since when and for how much
// longer, what is disabled, and what changed hands lately; live, and as JSON.
//
//	var events lockhttp.Events // remembers how long the jobs may take, and the takeovers
//	l, err := lock.NewWith(db, lock.Options{Observer: events.Observe})
//	…
//	page := lockhttp.New(l, lockhttp.Options{Events: &events, Authorize: onlyOperators})
//	http.Handle("/debug/locks/", page)
//
// [Handler] does with one argument: http.Handle("/debug/locks/", lockhttp.Handler(l)). Then everybody who reaches the page may
// look, and nobody may change anything.
//
// # What it answers
//
// The handler answers alike on every path below the one where it is mounted, with http.StripPrefix or without. It doesn't need to
// know its prefix:
//
//	GET, HEAD                 the page
//	GET, HEAD ?format=json    a [State]; also on a path that ends in /json, and to Accept: application/json without text/html
//	POST                      a [Change], as application/json; answered with a [Result]
//
// The status codes are 200; 503 with the last known State while the database can't be read; for a POST 400, 413 and 415 for
// what isn't a Change, 403 for one that is forbidden, 409 for a lock that another holds by now, 503 for one that the database
// has failed; and 405 for other methods. Errors are a Result where JSON is asked for, and otherwise text.
//
// # What it costs
//
// A page that is open and visible asks every two seconds. However many are open, the table is read once a second at most; while
// none is, it isn't read and nothing runs.
//
// # Changes
//
// Each is put to [Options.Authorize], the service's own; without it, changes are refused and the page has no buttons. The
// request of another site is refused before that, by two means that need no session and no secret in the page:
// [http.CrossOriginProtection], and the content type application/json, with which a browser sends nothing to another origin
// unless that agrees, which this handler never does. A hook that lets in whoever comes from some network, without cookie or
// password, should also compare r.Host to the names of the service, or a site can reach it whose name is pointed at that network.
//
// What others have named (components, jobs, IDs) is data: the server sends it as JSON only, and the page never parses it as HTML,
// which its Content-Security-Policy rules out besides.
package lockhttp

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// Options are for [New]. Their zero value is what [Handler] uses.
type Options struct {
	// MaxDuration says how long a job may take, or how soon its lease expires: what its callers state as the longest duration. 0
	// means that it isn't known; then Events is asked. Of a job of which neither knows, the age is shown without a bar. A nil
	// MaxDuration knows nothing. It is called often, for each lock, and from several goroutines at once.
	MaxDuration func(componentName, jobName string) time.Duration
	// Events, unless nil, is what this process has seen of its own calls: longest durations and takeovers.
	Events *Events
	// Authorize says whether a request may do an action: nil, or why not, which is shown to whoever asked. While Authorize is nil,
	// everybody may look, and every change is refused. It is called from several goroutines at once.
	Authorize func(r *http.Request, a Action) error
	// CrossOrigin tells a browser's request from another origin; nil means one that trusts no other origin. One of your own is for a
	// proxy that hides the host's name from the service, over plain HTTP: see [http.CrossOriginProtection.AddTrustedOrigin].
	CrossOrigin *http.CrossOriginProtection
}

// ActionKind is what somebody asks for.
type ActionKind string

// What an [Action] may be.
const (
	Look    ActionKind = "look" // at the page, or at its JSON
	Enable  ActionKind = "enable"
	Disable ActionKind = "disable"
	Release ActionKind = "release" // by force, in the place of the holder
)

// Action is what somebody asks for, and the service allows or not.
type Action struct {
	Kind          ActionKind
	ComponentName string // "" for Look, which is of all locks
	JobName       string // likewise
}

// Handler returns the page of l, on which everybody may look and nobody may change anything: that of [New] with the zero
// Options.
func Handler(l *lock.Lock) http.Handler { return New(l, Options{}) }

// New returns the page of l. It starts nothing and asks the database nothing. The handler is safe for concurrent use.
//
// The Storage of l must have QueryContext or Query (see [lock.Lock.List]), as *sql.DB has; a database that can't be read, or a
// nil l, is an error that the page shows.
func New(l *lock.Lock, o Options) http.Handler {
	if o.CrossOrigin == nil {
		o.CrossOrigin = new(http.CrossOriginProtection)
	}
	return &handler{l: l, o: o, table: newTable(l.List)}
}

type handler struct {
	l     *lock.Lock
	o     Options
	table *table
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	headers(w.Header())
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.show(w, r)
	case http.MethodPost:
		h.change(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "there is only GET, HEAD and POST", http.StatusMethodNotAllowed)
	}
}

// headers sets what every answer has, whatever it is.
func headers(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Vary", "Accept")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// show answers with the page or with its JSON.
func (h *handler) show(w http.ResponseWriter, r *http.Request) {
	format := r.URL.Query().Get("format")
	asJSON := format == "json" || format == "" && wantsJSON(r)
	fail := func(code int, why string) {
		if asJSON {
			reply(w, code, Result{Error: why})
			return
		}
		http.Error(w, why, code)
	}
	if format != "" && format != "json" && format != "html" {
		fail(http.StatusBadRequest, fmt.Sprintf("the format %.100q is not json or html", format))
		return
	}
	if h.o.Authorize != nil {
		if err := h.o.Authorize(r, Action{Kind: Look}); err != nil {
			fail(http.StatusForbidden, err.Error())
			return
		}
	}
	if !asJSON {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(page)
		return
	}
	state, ok := h.state(r.Context())
	code := http.StatusOK
	if !ok {
		code = http.StatusServiceUnavailable
	}
	reply(w, code, state)
}

// wantsJSON says whether a request that names no format is one for JSON.
func wantsJSON(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.HasSuffix("/"+r.URL.Path, "/json") ||
		strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}
