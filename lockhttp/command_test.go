package lockhttp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

const (
	disable = `{"action":"disable","component":"shop","job":"backup"}`
	enable  = `{"action":"enable","component":"shop","job":"backup"}`
)

// release is the command to release the lock of whoever was seen.
func release(seen lockhttp.Holder) string {
	component, job := "shop", "backup"
	body, _ := json.Marshal(lockhttp.Command{Action: lockhttp.Release, Component: &component,
		Job: &job, ComponentID: &seen.ComponentID, JobID: &seen.JobID, LockTime: &seen.LockTime})
	return string(body)
}

func TestOptions_Authorize(t *testing.T) {
	no := func(kind lockhttp.ActionKind) func(*http.Request, lockhttp.Action) error {
		return func(r *http.Request, a lockhttp.Action) error {
			if a.Kind != kind {
				return nil
			}
			return fmt.Errorf("%s may not %s %s/%s", r.Header.Get("User"), a.Kind, a.ComponentName,
				a.JobName)
		}
	}
	release := release(lockhttp.Holder{ComponentID: "instance-1", JobID: "run-1", LockTime: start})
	for _, c := range []struct {
		name      string
		authorize func(*http.Request, lockhttp.Action) error
		body      string // "" is a look
		code      int
		says      string
	}{
		{"without a hook anybody looks", nil, "", 200, `"may_change":false`},
		{"without a hook nobody disables", nil, disable, 403, "Authorize is nil"},
		{"without a hook nobody enables", nil, enable, 403, "Authorize is nil"},
		{"without a hook nobody releases", nil, release, 403, "Authorize is nil"},
		{"a hook lets look", anything, "", 200, `"may_change":true`},
		{"a hook lets disable", anything, disable, 200, `"outcome":"disabled"`},
		{"a hook lets enable", anything, enable, 200, `"outcome":"enabled"`},
		{"a hook lets release", anything, release, 200, `"outcome":"released"`},
		{"a hook refuses a look", no(lockhttp.Look), "", 403, "Ann may not look /"},
		{"a hook refuses to disable", no(lockhttp.Disable), disable, 403,
			"Ann may not disable shop/backup"},
		{"a hook refuses to enable", no(lockhttp.Enable), enable, 403,
			"Ann may not enable shop/backup"},
		{"a hook refuses to release", no(lockhttp.Release), release, 403,
			"Ann may not release shop/backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := memory()
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			before := status(t, l)
			h := lockhttp.New(l, lockhttp.Options{Authorize: c.authorize})
			w := ask(h, "GET", "/json", "", "User", "Ann")
			if c.body != "" {
				w = post(h, c.body, "User", "Ann")
			}
			require.Equal(t, c.code, w.Code)
			require.Contains(t, w.Body.String(), c.says)
			if c.code != 200 {
				require.Equal(t, before, status(t, l))
			}
		})
	}
	l, _ := memory()
	h := lockhttp.New(l, lockhttp.Options{Authorize: no(lockhttp.Look)})
	w := ask(h, "GET", "/", "", "User", "Ann")
	require.Equal(t, 403, w.Code)
	require.Equal(t, "Ann may not look /\n", w.Body.String())
}

// Whatever another site makes a browser send, it changes nothing.
func TestOptions_CrossOrigin(t *testing.T) {
	const site, origin, evil = "Sec-Fetch-Site", "Origin", "https://evil.example"
	trusting := new(http.CrossOriginProtection)
	require.NoError(t, trusting.AddTrustedOrigin("https://ops.example"))
	for _, c := range []struct {
		name    string
		headers []string
		trusts  *http.CrossOriginProtection
		code    int
	}{
		{"the page", []string{site, "same-origin", origin, "http://example.com"}, nil, 200},
		{"the page, in an old browser", []string{origin, "http://example.com"}, nil, 200},
		{"no browser", nil, nil, 200},
		{"another site", []string{site, "cross-site", origin, evil}, nil, 403},
		{"a sister", []string{site, "same-site", origin, "http://evil.example.com"}, nil, 403},
		{"another site, in an old browser", []string{origin, evil}, nil, 403},
		{"a site without a name", []string{origin, "null"}, nil, 403},
		{"a trusted one", []string{site, "cross-site", origin, "https://ops.example"}, trusting, 200},
		{"one that is not", []string{site, "cross-site", origin, evil}, trusting, 403},
		{"a form", []string{"Content-Type", "application/x-www-form-urlencoded"}, nil, 415},
		{"text that looks like JSON", []string{"Content-Type", "text/plain"}, nil, 415},
		{"nothing that says what it is", []string{"Content-Type", ""}, nil, 415},
		{"JSON with a charset", []string{"Content-Type", "application/json; charset=utf-8"}, nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := memory()
			h := lockhttp.New(l, lockhttp.Options{Authorize: anything, CrossOrigin: c.trusts})
			w := ask(h, "POST", "/", disable,
				append([]string{"Content-Type", "application/json"}, c.headers...)...)
			require.Equal(t, c.code, w.Code, w.Body)
			require.Equal(t, c.code != 200, status(t, l).Enabled)
		})
	}
}

func TestCommand_makes_no_sense(t *testing.T) {
	l, _ := memory()
	h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
	const shop, then = `,"component":"shop","job":"backup"`, `,"lock_time":"2026-11-25T06:00:00Z"}`
	for _, c := range []struct {
		name, body string
		code       int
		says       string
	}{
		{"nothing", ``, 400, "not a command: EOF"},
		{"no JSON", `action=disable`, 400, "not a command"},
		{"no action", `{"component":"shop","job":"backup"}`, 400, `the action "" is not enable, disable`},
		{"another action", `{"action":"drop"` + shop + `}`, 400, `the action "drop"`},
		{"a look", `{"action":"look"` + shop + `}`, 400, `the action "look"`},
		{"no component", `{"action":"disable","job":"backup"}`, 400, "needs the field component"},
		{"no job", `{"action":"enable","component":"shop"}`, 400, "to enable needs the field job"},
		{"no holder", `{"action":"release"` + shop + `,"job_id":"r"` + then,
			400, "needs the field component_id"},
		{"no run", `{"action":"release"` + shop + `,"component_id":"i"` + then,
			400, "needs the field job_id"},
		{"no lock time", `{"action":"release"` + shop + `,"component_id":"i","job_id":"r"}`,
			400, "needs the field lock_time"},
		{"a holder of what has none", `{"action":"disable"` + shop + `,"component_id":"i"}`,
			400, "not about its holder"},
		{"a field too many", `{"action":"disable"` + shop + `,"force":true}`, 400,
			`unknown field "force"`},
		{"two at once", disable + `{}`, 400, "more in the body than one command"},
		{"a NUL", `{"action":"disable","component":"shop","job":"back\u0000up"}`, 400,
			"the field job has a NUL"},
		{"too much", `{"action":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(h, c.body)
			require.Equal(t, c.code, w.Code)
			require.Contains(t, decode[lockhttp.Result](t, w).Error, c.says)
			all, err := l.List(t.Context())
			require.NoError(t, err)
			require.Empty(t, all)
		})
	}
	long := strings.Repeat("x", 100_000)
	w := post(h, fmt.Sprintf(`{"action":"disable","component":%q,"job":"backup"}`, long))
	require.Equal(t, 200, w.Code, "a name may be long")
}

func TestCommand_release(t *testing.T) {
	type meanwhile = func(t *testing.T, l *lock.Lock, clock *locktest.Clock)
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
	for _, c := range []struct {
		name      string
		meanwhile meanwhile // between the look and the release
		code      int
		result    lockhttp.Result // but for the error's text and the holder
		held      bool
	}{
		{"nothing happened", nothing, 200, lockhttp.Result{Outcome: "released"}, false},
		{"the holder renewed", renews, 409, lockhttp.Result{Reason: "renewed"}, true},
		{"the holder unlocked", unlocks, 200, lockhttp.Result{Outcome: "released"}, false},
		{"another took over", loses, 409, lockhttp.Result{Reason: "held"}, true},
		{"another run of the instance", runsAgain, 409, lockhttp.Result{Reason: "held"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, clock := memory()
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			h := lockhttp.New(l, lockhttp.Options{Authorize: anything})
			seen := *look(t, h).Locks[0].Holder
			c.meanwhile(t, l, clock)

			w := post(h, release(seen))
			require.Equal(t, c.code, w.Code, w.Body)
			got := decode[lockhttp.Result](t, w)
			row := status(t, l)
			if c.code == 409 {
				require.Contains(t, got.Error, "refused")
				require.Equal(t, row.Holder.ComponentID, got.Holder.ComponentID)
				require.Equal(t, row.Holder.JobID, got.Holder.JobID)
				require.True(t, row.Holder.LockTime.Equal(got.Holder.LockTime))
				require.Equal(t, 200, post(h, release(*got.Holder)).Code, "it is what was seen now")
				got.Error, got.Holder = "", nil
			}
			require.Equal(t, c.result, got)
			require.Equal(t, c.held, row.Locked)
			require.False(t, look(t, h).Locks[0].Holder != nil, "who looks after a change sees it")
		})
	}
}

// The comparison is the statement's: nothing is read before it that may be old by then.
func TestCommand_release_compares_in_the_statement(t *testing.T) {
	db := newTable(t)
	h := lockhttp.New(db.lock(t), lockhttp.Options{Authorize: anything})
	micros := fmt.Sprint(start.UnixMicro())
	db.ExpectQuery("UPDATE").
		WithArgs("shop", "instance-1", "backup", "run-1", micros, micros, "run-1").
		WillReturnRows(sqlmock.NewRows([]string{"released"}).AddRow(true))
	seen := lockhttp.Holder{ComponentID: "instance-1", JobID: "run-1", LockTime: start}
	w := post(h, release(seen))
	require.Equal(t, 200, w.Code, w.Body)
	require.NoError(t, db.ExpectationsWereMet())
}
