package lockhttp_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

// again makes the next look a new one.
func again(t *testing.T, h http.Handler) {
	t.Helper()
	w := post(h, `{"action":"enable","component":"another","job":"job"}`)
	require.Equal(t, 200, w.Code, w.Body)
}

// changes are those of a job, without their times.
func changes(s lockhttp.State, job string) (all []lockhttp.Change) {
	for _, c := range s.Changes {
		if c.Job == job {
			c.At, c.After = time.Time{}, nil
			all = append(all, c)
		}
	}
	return all
}

func TestEvents_takeover(t *testing.T) {
	var events lockhttp.Events
	l, clock := memory(events.Observe)
	h := lockhttp.New(l, lockhttp.Options{Events: &events, Authorize: anything,
		TTL: func(_, job string) time.Duration {
			return map[string]time.Duration{"report": time.Hour}[job]
		}})
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Minute))
	require.NoError(t, l.Lock("shop", "instance-1", "report", "run-1", time.Minute))
	require.Empty(t, look(t, h).Changes)

	clock.Advance(time.Minute + time.Microsecond)
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Minute))
	again(t, h)
	s := look(t, h, "search=shop", "sort=job")
	require.Equal(t, 60., s.Locks[0].TTL)
	require.Equal(t, 3600., s.Locks[1].TTL, "what the service says is preferred")
	want := lockhttp.Change{Component: "shop", Job: "backup", What: "taken_over",
		From: &lockhttp.Run{ComponentID: "instance-1", JobID: "run-1"},
		To:   &lockhttp.Run{ComponentID: "instance-2", JobID: "run-2"}}
	require.Equal(t, []lockhttp.Change{want}, changes(s, "backup"),
		"it is not told a second time as the difference of two looks")
	require.Equal(t, "taken_over", s.Locks[0].Changed.What)

	require.Error(t, l.Lock("shop", "instance-3", "backup", "run-3", 0))
	again(t, h)
	require.Zero(t, look(t, h, "search=backup").Locks[0].TTL, "whoever asked last has stated none")
}

func TestEvents_failing(t *testing.T) {
	failed := lock.Event{Kind: lock.Failed, Operation: "Acquire", Err: errors.New("away")}
	lost := lock.Event{Kind: lock.Lost, Operation: "Renew", Err: lock.ErrLost}
	shutDown := lock.Event{Kind: lock.Failed, Operation: "Acquire", Err: context.Canceled}
	renewed := lock.Event{Kind: lock.Renewed, Operation: "Renew"}
	refused := lock.Event{Kind: lock.Refused, Operation: "Acquire", Err: &lock.ErrDisabled{}}
	for _, c := range []struct {
		name   string
		events []lock.Event
		want   string
	}{
		{"nothing", nil, ""},
		{"failed", []lock.Event{failed}, "away"},
		{"lost", []lock.Event{lost}, lock.ErrLost.Error()},
		{"failed, then renewed", []lock.Event{failed, renewed}, ""},
		{"lost, then refused", []lock.Event{lost, refused}, ""},
		{"renewed, then lost", []lock.Event{renewed, lost}, lock.ErrLost.Error()},
		{"an ordinary shutdown", []lock.Event{shutDown}, ""},
		{"failed, then a shutdown", []lock.Event{failed, shutDown}, "away"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var events lockhttp.Events
			l, _ := memory()
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			for _, e := range c.events {
				e.ComponentName, e.JobName = "shop", "backup"
				events.Observe(t.Context(), e)
			}
			s := look(t, lockhttp.New(l, lockhttp.Options{Events: &events, Authorize: anything}))
			require.Equal(t, c.want, s.Locks[0].Failure)
			require.Equal(t, c.want != "", s.Locks[0].FailedAt != nil)
			require.Equal(t, c.want != "", s.Locks[0].States[0] == "failing")
			require.Equal(t, s.Counts["failing"], s.Counts["trouble"])
		})
	}
}

// Who did what with the page is known, whether or not the lock has the page's Events as observer.
func TestOptions_User(t *testing.T) {
	for name, observed := range map[string]bool{"observed": true, "not observed": false} {
		t.Run(name, func(t *testing.T) {
			var events lockhttp.Events
			l, _ := memory()
			if observed {
				l, _ = memory(events.Observe)
			}
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			h := lockhttp.New(l, lockhttp.Options{Events: &events, Authorize: anything,
				User: func(r *http.Request) string { return r.Header.Get("User") }})
			seen := *look(t, h).Locks[0].Holder
			require.Equal(t, 200, post(h, disable, "User", "Ann").Code)
			require.Equal(t, 200, post(h, release(seen), "User", "Bob").Code)
			require.Equal(t, 200, post(h, enable).Code)
			s := look(t, h)
			require.Equal(t, []lockhttp.Change{
				{Component: "shop", Job: "backup", What: "enabled"},
				{Component: "shop", Job: "backup", What: "released", By: "Bob",
					From: &lockhttp.Run{ComponentID: "instance-1", JobID: "run-1"}},
				{Component: "shop", Job: "backup", What: "disabled", By: "Ann"},
			}, changes(s, "backup"))
			require.Equal(t, s.Changes[0], *s.Locks[0].Changed)
		})
	}
}

func TestEvents_two_looks(t *testing.T) {
	l, clock := memory()
	for _, job := range []string{"backup", "released", "renewed", "held twice", "free"} {
		require.NoError(t, l.Lock("shop", "instance-1", job, "run-1", time.Hour))
	}
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
	again(t, h)
	now := look(t, h)
	require.Len(t, now.Changes, 2, "that, and what made it look again")
	got := now.Changes[0]
	require.Equal(t, "changed_hands", got.What)
	require.Equal(t, "backup", got.Job)
	require.Equal(t, "instance-1", got.From.ComponentID)
	require.Equal(t, "instance-2", got.To.ComponentID)
	require.True(t, got.After.Equal(*before.LookedAt))
	require.True(t, got.At.Equal(*now.LookedAt))
}
