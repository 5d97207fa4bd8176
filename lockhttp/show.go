package lockhttp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	usualLocks = 500  // as many are in an answer unless limit asks for another number
	mostLocks  = 5000 // limit may not be larger
)

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
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		fail(http.StatusBadRequest, err.Error())
		return
	}
	if h.watcher != nil && !q.after.IsZero() && !h.watcher.await(r.Context(), q.after) {
		return
	}
	state, ok := h.state(r.Context(), q)
	code := http.StatusOK
	if !ok {
		code = http.StatusServiceUnavailable
	}
	reply(w, code, state)
}

// wantsJSON reports whether a request that names no format is one for JSON.
func wantsJSON(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.HasSuffix("/"+r.URL.Path, "/json") ||
		strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// reply answers with JSON.
func reply(w http.ResponseWriter, code int, v any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(body.Bytes()) // an error is the client's, who has gone
}

// A query chooses locks and puts them in order.
type query struct {
	words []string // in lower case; a lock has all of them
	state string   // "": any
	order func(a, b *Lock) int
	down  bool
	limit int
	after time.Time // zero: don't wait for news
}

func parseQuery(v url.Values) (query, error) {
	q := query{state: v.Get("state"), limit: usualLocks,
		words: strings.Fields(strings.ToLower(v.Get("search")))}
	if q.state != "" && q.state != Trouble && !slices.Contains(states, q.state) {
		return q, fmt.Errorf("the state %.100q is not trouble, %s", q.state,
			strings.Join(states, ", "))
	}
	var key string
	key, q.down = strings.CutPrefix(v.Get("sort"), "-")
	var ok bool
	if q.order, ok = orders[key]; !ok {
		return q, fmt.Errorf("nothing is sorted by %.100q", key)
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > mostLocks {
			return q, fmt.Errorf("the limit %.100q is not a number from 1 to %d", s, mostLocks)
		}
		q.limit = n
	}
	if s := v.Get("after"); s != "" {
		var err error
		if q.after, err = time.Parse(time.RFC3339, s); err != nil {
			return q, fmt.Errorf("after %.100q is not the looked_at of an answer", s)
		}
	}
	return q, nil
}

// orders are by what locks can be sorted. The locks of a look are in the order of "".
var orders = map[string]func(a, b *Lock) int{
	"": func(a, b *Lock) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), byName(a, b))
	},
	"component": byName,
	"job":       func(a, b *Lock) int { return strings.Compare(a.Job, b.Job) },
	"holder": func(a, b *Lock) int {
		return strings.Compare(a.who().ComponentID, b.who().ComponentID)
	},
	"running": func(a, b *Lock) int { return cmp.Compare(a.who().Running, b.who().Running) },
	"age":     func(a, b *Lock) int { return cmp.Compare(a.who().Age, b.who().Age) },
}

func byName(a, b *Lock) int {
	return cmp.Or(strings.Compare(a.Component, b.Component), strings.Compare(a.Job, b.Job))
}

// choose returns the locks that are asked for, and how many there are without the limit.
func (q query) choose(all []Lock) ([]Lock, int) {
	var chosen []*Lock
	for i := range all {
		if q.fits(&all[i]) {
			chosen = append(chosen, &all[i])
		}
	}
	slices.SortStableFunc(chosen, func(a, b *Lock) int {
		if q.down {
			a, b = b, a
		}
		return q.order(a, b)
	})
	some := make([]Lock, min(len(chosen), q.limit))
	for i := range some {
		some[i] = *chosen[i]
	}
	return some, len(chosen)
}

func (q query) fits(l *Lock) bool {
	if q.state == Trouble && !l.troubled() || q.state != "" && q.state != Trouble &&
		!slices.Contains(l.States, q.state) {
		return false
	}
	if len(q.words) == 0 {
		return true
	}
	who := l.who()
	names := []string{l.Component, l.Job, who.ComponentID, who.JobID}
	text := strings.ToLower(strings.Join(append(names, l.States...), "\n"))
	return !slices.ContainsFunc(q.words, func(w string) bool { return !strings.Contains(text, w) })
}
