//go:build unix && !aix && !solaris

package main

import (
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTarget(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://u@h:1/d", "postgresql://u@h:1/d",
		"cockroach://u@h:1/d", "cockroachdb://u@h:1/d"} {
		target, err := parseTarget(dsn)
		require.NoError(t, err, dsn)
		require.Equal(t, "h", target.server.Host)
		require.Equal(t, uint16(1), target.server.Port)
		require.Equal(t, "d", target.server.Database)
		require.Equal(t, "lock", target.server.RuntimeParams["application_name"])
	}
	target, err := parseTarget("postgres://h/d?connect_timeout=60&application_name=mine")
	require.NoError(t, err)
	require.Equal(t, time.Minute, target.server.ConnectTimeout)
	require.Equal(t, "mine", target.server.RuntimeParams["application_name"])
	for _, path := range []string{"/tmp/a?b#c %41.db", "/tmp/port=1:a@b.db", "sqlite:/tmp/a.db",
		"sqlite:///tmp/a.db", "file:/tmp/a.db", "file:///tmp/a.db"} {
		target, err := parseTarget(path)
		require.NoError(t, err, path)
		if !strings.HasPrefix(path, "/") {
			path = "/tmp/a.db"
		}
		require.Equal(t, path, target.file)
	}
	for _, dsn := range []string{"mysql://u:geheim@h/d", "host=h password=geheim",
		"PASSWORD = geheim", "sslmode=require pass=geheim",
		"u:geheim@h/d", "geheim@h", "h:5432/d", ":memory:", "file::memory:", "sqlite:",
		"file:a.db?mode=ro"} {
		_, err := parseTarget(dsn)
		require.Error(t, err, dsn)
		require.NotContains(t, err.Error(), "geheim")
	}
}

func TestOddFileName(t *testing.T) {
	t.Parallel()
	u := userOf(t, t.TempDir()+"/a?b#c %41&_pragma=x.db")
	require.Equal(t, "hi\n", u.ok(t, "run", "--job", "hello", "--", "echo", "hi"))
	require.FileExists(t, strings.TrimPrefix(u.env[len(u.env)-1], "LOCK_DB="))
}

// No error contains the password.
func TestPasswordsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const dsn = "postgres://u:geheim@127.0.0.1:1/d"
	for _, args := range [][]string{{"list"}, {"run", "--help"},
		{"run", "--job", "x", "-v", "--log", "json", "--", "true"}} {
		r := userOf(t, dsn).do(t, args...)
		require.NotContains(t, r.stdout+r.stderr, "geheim", args)
	}
	r := userOf(t, "postgres://u@127.0.0.1:1/geheim").with("PGPASSWORD=geheim").do(t, "list")
	require.NotContains(t, r.stderr, "geheim")
}

// Nor does a message that contains it for another reason.
func TestMessagesAreCleaned(t *testing.T) {
	t.Parallel()
	s := &speaker{secrets: []string{"geheim"}}
	for msg, want := range map[string]string{
		"a geheim\n\tb": "a xxxxx b",
		`--wait "postgres://u:a/b@c d@h:1/d": no`:  `--wait "postgres://xxxxx@h:1/d": no`,
		"postgres://h/d?password=abc&user=u: no":   "postgres://h/d?password=xxxxx",
		"host=h Password = 'a b' user=u":           "host=h Password = xxxxx",
		"failed to connect to `user=u`: 127.1: no": "failed to connect to `user=u`: 127.1: no",
		"\x1b[2J": `\x1b[2J`,
	} {
		require.Equal(t, want, s.clean(msg))
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	held := entry{Component: "shop", Job: "backup", Held: true, Enabled: true,
		Holder: &holder{ComponentID: "a", JobID: "b", AgeSeconds: 3725}}
	long := entry{Component: strings.Repeat("c", 50), Job: strings.Repeat("日", 50), Enabled: false,
		Last: &holder{ComponentID: strings.Repeat("h", 100), JobID: "2026-11-23", AgeSeconds: 3}}
	hostile := entry{Component: "shop", Job: "a\x1b[2J\nb\"", Enabled: true}
	require.Equal(t, `COMPONENT  JOB           STATE  HOLDER (LAST)  RUN  AGE
shop       backup        held   a              b    1h2m
shop       a\x1b[2J\nb"  free   -              -    -
`, table([]entry{held, hostile}, 100, false))
	for _, limit := range []int{100, 80, 60} {
		text := table([]entry{held, long}, limit, false)
		for line := range strings.Lines(text) {
			require.LessOrEqual(t, cells(strings.TrimSuffix(line, "\n")), limit, text)
		}
		require.Contains(t, text, "…")
		require.Contains(t, text, "1h2m")
		require.Contains(t, text, "2026-11-23")
	}
}

func TestAgeWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Millisecond:                     "0s",
		-3 * time.Hour:                        "in 3h0m",
		math.MinInt64:                         "in 290y or more",
		math.MaxInt64:                         "290y or more",
		1234 * time.Millisecond:               "1.2s",
		59*time.Second + 600*time.Millisecond: "1m0s",
		90 * time.Minute:                      "1h30m",
		47 * time.Hour:                        "47h0m",
		72 * time.Hour:                        "3d",
		100 * 24 * time.Hour:                  "100d",
		5 * 365 * 24 * time.Hour:              "5y",
	} {
		require.Equal(t, want, ageWords(d))
	}
}

// The guard follows its orders.
func TestGuard(t *testing.T) {
	t.Parallel()
	hear := func(all ...orders) (why string, p processes) {
		read, write := io.Pipe()
		go func() {
			for _, o := range all {
				json.NewEncoder(write).Encode(o)
			}
			if all[len(all)-1].Until == 0 {
				write.Close()
			}
		}()
		return stand(read)
	}
	first, second := processes{PID: 1}, processes{PID: 2, Group: true, Session: 3, Mark: "a=b\n"}
	why, _ := hear(orders{Processes: first}, orders{Processes: second, Done: true})
	require.Empty(t, why)
	why, p := hear(orders{Processes: first}, orders{Processes: second})
	require.Equal(t, "lock run has been killed", why)
	require.Equal(t, second, p)
	past := monotonic() - 1
	why, p = hear(orders{Processes: first, Until: past + int64(time.Hour)},
		orders{Processes: second, Until: past})
	require.Equal(t, "lock run has been stopped for too long", why)
	require.Equal(t, second, p)
}
