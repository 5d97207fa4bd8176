// Package lockhttp shows the locks of a table on a page, like net/http/pprof: trouble first, who
// holds what, how long a run lasts, when it was last renewed, what is disabled, and what changed
// lately; live, and as JSON.
//
//	var events lockhttp.Events // remembers TTLs, failures and changes
//	l, err := lock.NewWith(db, lock.Options{Observer: events.Observe})
//	…
//	page := lockhttp.New(l, lockhttp.Options{
//		Service: "shop", Database: "orders at pg-1", Events: &events, Authorize: onlyOperators,
//	})
//	http.Handle("/debug/locks/", page)
//
// [Handler] takes one argument: http.Handle("/debug/locks/", lockhttp.Handler(l)). Then everybody
// who reaches the page may look, and nobody may change anything.
//
// # What it answers
//
// The handler answers alike on every path below the one where it is mounted, with
// http.StripPrefix or without. It doesn't need to know its prefix:
//
//	GET, HEAD                 the page
//	GET, HEAD ?format=json    a [State]; also on a path that ends in /json, and to
//	                          Accept: application/json without text/html
//	POST                      a [Command], as application/json; answered with a [Result]
//
// The JSON has 500 locks unless limit asks for another number, up to 5000. More parameters choose
// them: search=words, state=expired (see [Lock]), sort=job or sort=-job (see [State]). With after,
// a request waits for news: see "Told at once".
//
// The status codes are 200; 503 with the last known State while the database can't be read; for a
// POST 400, 413 and 415 for what isn't a Command, 403 for one that is forbidden, 409 for a lock
// that is no longer as it was seen, 503 for one that the database has failed; 400 for unknown
// parameters; and 405 for other methods. Errors are a Result where JSON is asked for, and
// otherwise text.
//
// # What it costs
//
// A page that is open and visible asks every two seconds, or is told. However many are open, the
// table is read once a second at most, and for a fifth of the time at most; while none is, it
// isn't read and nothing runs. A look stops after 20000 locks or 8 MB of names and IDs, and says
// so. Once a minute it also checks the table (see [lock.Lock.CheckTable]).
//
// # Told at once
//
// With [Options.Subscribe], a page leaves its request open, and it is answered after the next look
// at the table. What is shown when:
//
//	at once            a release; that a job is enabled
//	a second later     who acquired the lock that was released
//	within 5 seconds   acquisitions, renewals, takeovers, expiries, disabled and deleted jobs;
//	                   releases of which nobody tells
//
// However many releases there are, the table is read four times a second at most, and for a fifth
// of the time at most. A request is open for five seconds, or half of the server's WriteTimeout
// or of the time that its context leaves, if that is less; [http.Server.Shutdown] waits for it. A
// page whose tab is hidden has none. A script that wants the same passes the looked_at of one
// answer as the after of the next request.
//
// # Changes
//
// Each is put to [Options.Authorize], the service's own; without it, changes are refused and the
// page has no buttons. The request of another site is refused before that, by two means that need
// no session and no secret in the page: [http.CrossOriginProtection], and the content type
// application/json, with which a browser sends nothing to another origin unless that agrees, which
// this handler never does. A hook that lets in whoever comes from some network, without cookie or
// password, should also compare r.Host to the names of the service, or a site can reach it whose
// name is pointed at that network.
//
// What others have named (components, jobs, IDs) is data: the server sends it as JSON only, and
// the page never parses it as HTML, which its Content-Security-Policy rules out besides.
package lockhttp

import (
	"net/http"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// Options are for [New]. Their zero value is what [Handler] uses.
type Options struct {
	// Service, Host and Database tell whoever looks which locks these are. Each is a plain
	// description like "orders at pg-1"; "" is left out. What may be a URL or a DSN, with an @,
	// an = or :// in it, is not shown, since there may be a password in it.
	Service, Host, Database string
	// TTL returns how long after its lock time the lock of a job expires: what its callers state
	// as Job.TTL or as the longest duration. 0 or less means that it isn't known; then Events is
	// asked. [lock.Forever] means never. Of a job of which neither knows, nobody can tell whether
	// it is late. TTL may be nil. It is called for each lock that is read.
	TTL func(componentName, jobName string) time.Duration
	// Events is what this process has seen of its own calls. If it is nil, only the changes that
	// are made with the page, and those that the looks at the table show, are known.
	Events *Events
	// Authorize returns nil if a request may do an action, or else why not, which is shown to
	// whoever asked. If Authorize is nil, everybody may look, every change is refused, and the
	// texts of errors, which may name hosts and users, are not shown. It is called from several
	// goroutines at once.
	Authorize func(r *http.Request, a Action) error
	// User returns the name of whoever sends a request, for the list of changes. It may be nil,
	// and return "", which means that it isn't known. It is called from several goroutines at
	// once.
	User func(r *http.Request) string
	// Subscribe, unless nil, makes woken be called each time any lock may have become free, until
	// stop is called; it is SubscribeAll of a Notifier of module locknotify. Then the page shows
	// releases at once. It is a hint and no promise: if it fails, blocks, loses, repeats or lies,
	// the page looks too late or once too often, and nothing else. woken doesn't block, and may be
	// called after stop. Subscribe and stop are called in the background, in turn: the one when
	// somebody begins to watch, the other ten seconds after the last request.
	Subscribe func(woken func()) (stop func())
	// CrossOrigin tells a browser's request from another origin; nil means one that trusts no
	// other origin. One of your own is for a proxy that hides the host's name from the service,
	// over plain HTTP: see [http.CrossOriginProtection.AddTrustedOrigin].
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

// Handler returns the page of l, on which everybody may look and nobody may change anything: that
// of [New] with the zero Options.
func Handler(l *lock.Lock) http.Handler { return New(l, Options{}) }

// New returns the page of l. It starts nothing and asks the database nothing. The handler is safe
// for concurrent use.
//
// The Storage of l must have QueryContext or Query (see [lock.Lock.All]), as *sql.DB has; a
// database that can't be read, or a nil l, is an error that the page shows.
func New(l *lock.Lock, o Options) http.Handler {
	if o.CrossOrigin == nil {
		o.CrossOrigin = new(http.CrossOriginProtection)
	}
	if o.Events == nil {
		o.Events = new(Events)
	}
	for _, s := range []*string{&o.Service, &o.Host, &o.Database} {
		if strings.ContainsAny(*s, "@=") || strings.Contains(*s, "://") {
			*s = "not shown: it may have a password in it"
		}
	}
	h := &handler{l: l, o: o, table: newTable(l, o)}
	if o.Subscribe != nil {
		h.watcher = &watcher{table: h.table, subscribe: o.Subscribe}
	}
	return h
}

type handler struct {
	l       *lock.Lock
	o       Options
	table   *table
	watcher *watcher // nil if nobody tells of releases
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
		http.Error(w, "only GET, HEAD and POST are allowed", http.StatusMethodNotAllowed)
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
