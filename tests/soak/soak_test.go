package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

func soak(t *testing.T, o options) report {
	r, err := run(t.Context(), o)
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	var text strings.Builder
	r.print(&text)
	t.Log(text.String())
	return r
}

// TestRun is the short form: the long one is go run ./tests/soak.
func TestRun(t *testing.T) {
	r := soak(t, options{duration: 8 * time.Second, naptime: time.Second, work: (*worker).round})
	require.Empty(t, r.wrong)
	for _, kind := range []lock.EventKind{lock.Acquired, lock.Refused, lock.Renewed, lock.Released} {
		require.NotZero(t, r.events[kind], kind)
	}
	require.NotZero(t, r.checks)
}

// TestRun_leak: the instances forget goroutines and rows, and one of them a connection.
func TestRun_leak(t *testing.T) {
	forgotten := make(chan struct{})
	defer close(forgotten)
	r := soak(t, options{duration: 5 * time.Second, naptime: time.Second, patience: time.Second,
		work: func(w *worker) {
			if w.run++; w.run == 1 && w.id == "instance-7/0" {
				_, err := w.db.Conn(t.Context())
				w.expect(err)
			}
			memory := make([]byte, 4096)
			go func() {
				<-forgotten
				runtime.KeepAlive(memory)
			}()
			w.expect(w.l.Enable(component, fmt.Sprint(w.id, w.run)))
			w.pause(20 * time.Millisecond)
		}})
	for _, says := range []string{"live heap after a collection, the least, KiB has grown",
		"goroutines has grown", "live rows of locks has grown",
		"1 connections of instance 7 are in use", "goroutines are left"} {
		require.Contains(t, strings.Join(r.wrong, "\n"), says)
	}
}

// TestJudge judges series whose growth is obvious. Each is a series of the first figure, which
// may grow by 1024.
func TestJudge(t *testing.T) {
	require.Equal(t, int64(1024), figures[0].most)
	for _, test := range []struct {
		name  string
		at    func(i int) int64 // of a hundred
		grown bool
	}{
		{"constant", func(int) int64 { return 5000 }, false},
		{"falling", func(i int) int64 { return 9000 - 50*int64(i) }, false},
		{"up and down, as between two vacuums", func(i int) int64 { return 5000 * int64(i%7) }, false},
		{"a peak at the end", func(i int) int64 {
			if i == 99 {
				return 90_000
			}
			return 5000
		}, false},
		{"a hill in the middle", func(i int) int64 {
			if i > 40 && i < 60 {
				return 90_000
			}
			return 5000
		}, false},
		{"growing by less than is allowed", func(i int) int64 { return 5000 + 12*int64(i) }, false},
		{"growing by more", func(i int) int64 { return 5000 + 13*int64(i) }, true},
		{"growing, up and down", func(i int) int64 { return 40*int64(i) + 500*int64(i%7) }, true},
		{"a step in the last third", func(i int) int64 {
			if i > 70 {
				return 7000
			}
			return 5000
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var all []sample
			for i := range 100 {
				s := make(sample, len(figures))
				s[0] = test.at(i)
				all = append(all, s)
			}
			rows := judge(all)
			require.Equal(t, test.grown, rows[0].grown(), "%+v", rows[0])
			for _, row := range rows[1:] {
				require.False(t, row.grown(), row.name)
			}
		})
	}
}

func TestRun_options(t *testing.T) {
	for says, o := range map[string]options{
		"duration of 1s":              {duration: time.Second, naptime: time.Second},
		"naptime of 500ms":            {duration: time.Minute, naptime: time.Second / 2},
		"naptime of 1m0s is too long": {duration: 4 * time.Minute, naptime: time.Minute},
		"naptime of 1m0.5s":           {duration: time.Minute, naptime: time.Minute + time.Second/2},
	} {
		_, err := run(t.Context(), o)
		require.ErrorContains(t, err, says)
	}
}
