package lockhttp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/cloudtrust/go-jobs/lock"
)

// mostBytes bounds a request: four names and IDs of 100 kB each, however JSON escapes them.
const mostBytes = 4 << 20

// Change is the body of a POST.
type Change struct {
	Action    ActionKind `json:"action"` // enable, disable or release
	Component *string    `json:"component"`
	Job       *string    `json:"job"`
	// ComponentID and JobID are, for release, who was seen to hold the lock: it is released only if they still do.
	ComponentID *string `json:"component_id,omitempty"`
	JobID       *string `json:"job_id,omitempty"`
	// Token is, for release, that of the holder as it was seen. If it has renewed the lock since, it is alive, and the release is
	// refused. "" means to release it all the same.
	Token string `json:"token,omitempty"`
}

// Result is what a POST has come to.
type Result struct {
	// Outcome is "enabled", "disabled", "released", or "free": nobody held the lock that was to be released. It is "" if there is
	// an Error.
	Outcome string `json:"outcome,omitempty"`
	Error   string `json:"error,omitempty"`
	// Reason says of a release that was refused, with status 409, why: "held", by another, or "renewed" since. Holder is who
	// holds the lock now.
	Reason string  `json:"reason,omitempty"`
	Holder *Holder `json:"holder,omitempty"`
}

// change answers a POST.
func (h *handler) change(w http.ResponseWriter, r *http.Request) {
	if err := h.o.CrossOrigin.Check(r); err != nil {
		reply(w, http.StatusForbidden, Result{Error: err.Error()})
		return
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		reply(w, http.StatusUnsupportedMediaType, Result{Error: "a change is application/json"})
		return
	}
	if h.o.Authorize == nil {
		reply(w, http.StatusForbidden, Result{Error: "nothing can be changed here: lockhttp.Options.Authorize is nil"})
		return
	}
	c, err := parse(http.MaxBytesReader(w, r.Body, mostBytes))
	if err != nil {
		code := http.StatusBadRequest
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			code = http.StatusRequestEntityTooLarge
		}
		reply(w, code, Result{Error: err.Error()})
		return
	}
	if err := h.o.Authorize(r, Action{Kind: c.Action, ComponentName: *c.Component, JobName: *c.Job}); err != nil {
		reply(w, http.StatusForbidden, Result{Error: err.Error()})
		return
	}
	code, result := h.do(r, c)
	h.table.forget()
	reply(w, code, result)
}

// parse reads a change, and finds what is wrong with it.
func parse(body io.Reader) (Change, error) {
	var c Change
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("the body is not a change: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return c, errors.New("there is more in the body than one change")
	}
	needed := map[string]*string{"component": c.Component, "job": c.Job}
	switch c.Action {
	case Enable, Disable:
		if c.ComponentID != nil || c.JobID != nil || c.Token != "" {
			return c, fmt.Errorf("to %s is about a job, not about its holder", c.Action)
		}
	case Release:
		needed["component_id"], needed["job_id"] = c.ComponentID, c.JobID
	default:
		return c, fmt.Errorf("the action %.100q is not enable, disable or release", c.Action)
	}
	for _, field := range []string{"component", "job", "component_id", "job_id"} {
		value, ok := needed[field]
		switch {
		case !ok:
		case value == nil:
			return c, fmt.Errorf("to %s needs the field %s", c.Action, field)
		case strings.ContainsRune(*value, 0):
			return c, fmt.Errorf("the field %s has a NUL, which no database can hold", field)
		}
	}
	return c, nil
}

// do carries out a change that is allowed.
func (h *handler) do(r *http.Request, c Change) (int, Result) {
	ctx := r.Context()
	switch c.Action {
	case Enable:
		return outcome("enabled", h.l.EnableContext(ctx, *c.Component, *c.Job))
	case Disable:
		return outcome("disabled", h.l.DisableContext(ctx, *c.Component, *c.Job))
	}
	s, err := h.l.Status(ctx, *c.Component, *c.Job)
	if err != nil {
		return outcome("", err)
	}
	if !s.Locked {
		return outcome("free", nil)
	}
	seen := lock.Holder{ComponentID: *c.ComponentID, JobID: *c.JobID}
	if now := tokenOf(s.Holder); sameRun(s.Holder, seen) && c.Token != "" && c.Token != now {
		return http.StatusConflict, Result{
			Error:  "refused: the holder has renewed its lock since you looked, so it is alive",
			Reason: "renewed", Holder: holderOf(s.Holder),
		}
	}
	// Whoever holds it by now, the database compares the IDs in the step that releases.
	return outcome("released", h.l.ForceRelease(ctx, *c.Component, *c.Job, seen))
}

// outcome is a call that has come to this, or to err.
func outcome(word string, err error) (int, Result) {
	var held *lock.ErrUnauthorised
	switch {
	case err == nil:
		return http.StatusOK, Result{Outcome: word}
	case errors.As(err, &held):
		return http.StatusConflict, Result{Error: err.Error(), Reason: "held", Holder: holderOf(held.Holder())}
	default:
		return http.StatusServiceUnavailable, Result{Error: err.Error()}
	}
}
