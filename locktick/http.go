package locktick

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// OutcomeHeader is a header of every response of [Guard.Handler] and [Guard.Middleware]. It has
// the [Outcome] of the tick, or "bad request" if the request doesn't name its tick.
const OutcomeHeader = "Lock-Outcome"

// TickOf returns the tick of a request. It must be the same for the requests to all instances, so
// the sender must name it.
type TickOf func(r *http.Request) (time.Time, error)

// FromHeader returns a TickOf that reads the scheduled time from a header, as in RFC 3339 and in
// whole seconds. Google's Cloud Scheduler sends X-CloudScheduler-ScheduleTime; curl may send -H
// "Tick: $(date -u +%FT%H:%M:00Z)".
func FromHeader(name string) TickOf {
	return func(r *http.Request) (time.Time, error) {
		value := r.Header.Get(name)
		if value == "" {
			return time.Time{}, fmt.Errorf("the header %s, which names the tick, is missing", name)
		}
		t, err := time.Parse(time.RFC3339, value)
		switch {
		case err != nil:
			return time.Time{}, fmt.Errorf("the header %s, %.100q, is not a time like 2006-01-02T15:04:05Z",
				name, value)
		case t.Nanosecond() != 0:
			return time.Time{}, fmt.Errorf("the header %s, %.100q, is not a whole second: "+
				"it has to be the scheduled time, not that of the request", name, value)
		}
		return t, nil
	}
}

// Handler returns a handler that runs f if this instance acquires the lock for the tick of the
// request. It answers when f has returned. The context of f ends with the request, for example
// when the client disconnects, and when the lease is lost. A nil tick means that ticks have no
// names and that Job.Spacing separates the runs.
//
// The answer is a line of JSON and a status. The status is a success only if the run of this tick
// is known to have succeeded:
//
//	200 OK                     ran: here, and the job returned nil
//	200 OK                     already run: this tick, if the Job has RetryFailed: it has not failed
//	400 Bad Request            the request doesn't name its tick
//	409 Conflict               already run: a later tick, or what came of it isn't known
//	409 Conflict               disabled
//	423 Locked                 running elsewhere; or held: an earlier run has not ended
//	425 Too Early              ahead: the clock of who sent the request is fast
//	500 Internal Server Error  ran: here, and the job has failed, or lost its lock
//	503 Service Unavailable    failed: the database could not be asked; or stopped, as in a shutdown
//
// If the scheduler repeats requests that don't succeed, set RetryFailed. Otherwise a failed run
// is not repeated, and the answer stays a 409. The answer has no details of an error: [Guard]
// reports them. Handler answers every method and every client: restrict them with a mux and your
// authentication.
func (g Guard) Handler(tick TickOf, f func(ctx context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if result, ok := g.serve(w, r, tick, f); ok {
			g.answer(w, result)
		}
	})
}

// Middleware returns a handler that calls next if this instance acquires the lock for the tick of
// the request. The answer is then next's, with the [OutcomeHeader] "ran"; a status of 400 or more
// means that the run failed. If the lock isn't acquired, or is lost before next has answered, the
// answer is that of [Guard.Handler]. The context of next's request ends when the lease is lost.
func (g Guard) Middleware(tick TickOf, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := &response{ResponseWriter: w}
		result, ok := g.serve(w, r, tick, func(ctx context.Context) error {
			w.Header().Set(OutcomeHeader, string(Ran))
			next.ServeHTTP(own, r.WithContext(ctx))
			if own.status >= http.StatusBadRequest {
				return fmt.Errorf("the answer was %d %s", own.status, http.StatusText(own.status))
			}
			return nil
		})
		if ok && own.status == 0 && (result.Outcome != Ran || result.Err != nil) {
			g.answer(w, result)
		}
	})
}

// response notes the status of an answer.
type response struct {
	http.ResponseWriter
	status int // 0: none yet
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serve finds the tick and runs it, or answers that there is none.
func (g Guard) serve(w http.ResponseWriter, r *http.Request, tick TickOf,
	f func(ctx context.Context) error) (Result, bool) {
	var t time.Time
	if tick != nil {
		var err error
		if t, err = tick(r); err == nil && t.IsZero() {
			err = errors.New("the tick of the request is the zero time")
		}
		if err != nil {
			write(w, http.StatusBadRequest, body{Outcome: "bad request", Component: g.Job.ComponentName,
				Job:   g.Job.JobName,
				Error: err.Error()})
			return Result{}, false
		}
	}
	return g.Run(r.Context(), t, f), true
}

// body is what is answered.
type body struct {
	Outcome   Outcome    `json:"outcome"`
	Component string     `json:"component"`
	Job       string     `json:"job"`
	Tick      *time.Time `json:"tick,omitempty"`
	// the component ID of who runs or has run it, or holds the lock
	By       string     `json:"by,omitempty"`
	LockTime *time.Time `json:"lock_time,omitempty"` // of that one, by the database's clock
	Error    string     `json:"error,omitempty"`
}

func (g Guard) answer(w http.ResponseWriter, r Result) {
	b := body{Outcome: r.Outcome, Component: r.ComponentName, Job: r.JobName}
	if !r.Tick.IsZero() {
		tick := r.Tick.UTC()
		b.Tick = &tick
	}
	holder, ok := r.Holder()
	if ok {
		b.By, b.LockTime = holder.ComponentID, &holder.LockTime
	}
	status := http.StatusOK
	switch r.Outcome {
	case Ran:
		if r.Err != nil {
			status, b.Error = http.StatusInternalServerError, "the job has failed; the report of this "+
				"instance says how"
		}
	case AlreadyRun:
		switch {
		case !holder.Started().Equal(r.Tick) && !r.Tick.IsZero():
			status, b.Error = http.StatusConflict, "a later tick has been run: this one is not run any more"
		case !g.Job.RetryFailed:
			status, b.Error = http.StatusConflict, "it has been run; what came of it is not known here"
		}
	case Running, Held:
		status = http.StatusLocked
	case Disabled:
		status = http.StatusConflict
	case Ahead:
		status, b.Error = http.StatusTooEarly, "the tick is ahead of the database's clock"
	case Stopped:
		status, b.Error = http.StatusServiceUnavailable, "the run was stopped"
	default:
		status, b.Error = http.StatusServiceUnavailable, "the lock could not be asked for; the report "+
			"of this instance says why"
	}
	write(w, status, b)
}

func write(w http.ResponseWriter, status int, b body) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(OutcomeHeader, string(b.Outcome))
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(b) // the client may have gone
}
