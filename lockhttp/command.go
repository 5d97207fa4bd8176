package lockhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// mostBytes bounds a request: four names and IDs of 100 kB each, however JSON escapes them.
const mostBytes = 4 << 20

// Command is the body of a POST.
type Command struct {
	Action    ActionKind `json:"action"` // enable, disable or release
	Component *string    `json:"component"`
	Job       *string    `json:"job"`
	// ComponentID, JobID and LockTime are, for release, the holder that was seen. The lock is
	// released only if all three are still so.
	ComponentID *string    `json:"component_id,omitempty"`
	JobID       *string    `json:"job_id,omitempty"`
	LockTime    *time.Time `json:"lock_time,omitempty"`
}

// Result is what a POST has come to.
type Result struct {
	// Outcome is "enabled", "disabled", or "released": nobody holds the lock. It is "" if there
	// is an Error.
	Outcome string `json:"outcome,omitempty"`
	Error   string `json:"error,omitempty"`
	// Reason is why a release was refused, with status 409: "held", by another, or "renewed", by
	// the holder that was seen, which is alive. Holder is who holds the lock now.
	Reason string  `json:"reason,omitempty"`
	Holder *Holder `json:"holder,omitempty"`
}

// change answers a POST.
func (h *handler) change(w http.ResponseWriter, r *http.Request) {
	if err := h.o.CrossOrigin.Check(r); err != nil {
		reply(w, http.StatusForbidden, Result{Error: err.Error()})
		return
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" {
		reply(w, http.StatusUnsupportedMediaType, Result{Error: "a command is application/json"})
		return
	}
	if h.o.Authorize == nil {
		const why = "nothing can be changed here: lockhttp.Options.Authorize is nil"
		reply(w, http.StatusForbidden, Result{Error: why})
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
	action := Action{Kind: c.Action, ComponentName: *c.Component, JobName: *c.Job}
	if err := h.o.Authorize(r, action); err != nil {
		reply(w, http.StatusForbidden, Result{Error: err.Error()})
		return
	}
	code, result := h.do(r, c)
	h.table.forget()
	reply(w, code, result)
}

// parse reads a command, and finds what is wrong with it.
func parse(body io.Reader) (Command, error) {
	var c Command
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("the body is not a command: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return c, errors.New("there is more in the body than one command")
	}
	needed := map[string]*string{"component": c.Component, "job": c.Job}
	switch c.Action {
	case Enable, Disable:
		if c.ComponentID != nil || c.JobID != nil || c.LockTime != nil {
			return c, fmt.Errorf("to %s is about a job, not about its holder", c.Action)
		}
	case Release:
		needed["component_id"], needed["job_id"] = c.ComponentID, c.JobID
		if c.LockTime == nil {
			return c, errors.New("to release needs the field lock_time")
		}
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

// do carries out a command that is allowed.
func (h *handler) do(r *http.Request, c Command) (int, Result) {
	who := &actor{events: h.o.Events}
	if h.o.User != nil {
		who.name = h.o.User(r)
	}
	ctx := context.WithValue(r.Context(), actorKey{}, who)
	event := lock.Event{ComponentName: *c.Component, JobName: *c.Job}
	var seen lock.Holder
	var err error
	switch c.Action {
	case Enable:
		event.Kind = lock.Enabled
		err = h.l.EnableContext(ctx, *c.Component, *c.Job)
	case Disable:
		event.Kind = lock.Disabled
		err = h.l.DisableContext(ctx, *c.Component, *c.Job)
	case Release:
		seen = lock.Holder{ComponentID: *c.ComponentID, JobID: *c.JobID, LockTime: *c.LockTime}
		event.Kind, event.Operation = lock.Released, "ForceRelease"
		event.ComponentID, event.JobID = seen.ComponentID, seen.JobID
		err = h.l.ForceRelease(ctx, *c.Component, *c.Job, seen)
	}
	var refused *lock.ErrUnauthorised
	switch {
	case errors.As(err, &refused):
		now := refused.Holder()
		result := Result{Error: err.Error(), Reason: "held", Holder: holderOf(now)}
		if now.ComponentID == seen.ComponentID && now.JobID == seen.JobID {
			result.Reason = "renewed"
		}
		return http.StatusConflict, result
	case err != nil:
		return http.StatusServiceUnavailable, Result{Error: err.Error()}
	}
	if !who.told.Load() { // the lock has another observer, or none
		h.o.Events.Observe(ctx, event)
	}
	return http.StatusOK, Result{Outcome: string(event.Kind)}
}
