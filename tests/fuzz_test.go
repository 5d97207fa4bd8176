package tests

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// fuzzed are the engines for names, IDs and durations.
func fuzzed(f *testing.F) (all []*sql.DB) {
	for _, e := range named("SQLite", "PostgreSQL, pgx", "PostgreSQL, lib_pq") {
		all = append(all, e.Open(f))
	}
	return all
}

// FuzzNamesAndIDs: a name or an ID is data, whatever it contains, or an error that says what is
// wrong.
func FuzzNamesAndIDs(f *testing.F) {
	for _, s := range []string{"", "a", "it's", `"; DROP TABLE locks; --`, "$1", "?1", "%s",
		"a\nb\t\\", "naïve", "🔒", "\u202e", "�",
		"a\x00b", "\xff\xfe", "a\xed\xa0\x80", strings.Repeat("x",
			2000), " a ", "A", "NULL", "UNLOCKED"} {
		f.Add(s, "id", "job", "run")
		f.Add("shop", s, "job", s)
		f.Add("shop", "id", s, "run")
	}
	megabyte := strings.Repeat("é", 1<<19)
	f.Add("shop", megabyte, "job", megabyte)
	f.Add(megabyte, "id", megabyte, "run")
	dbs := fuzzed(f)
	f.Fuzz(func(t *testing.T, component, id, job, run string) {
		for _, db := range dbs {
			l := lock.New(db)
			_, err := db.Exec("DELETE FROM locks")
			require.NoError(t, err)
			err = l.Lock(component, id, job, run, time.Hour)
			if all := component + id + job + run; strings.ContainsRune(all, 0) ||
				!utf8.ValidString(component) || !utf8.ValidString(id) || !utf8.ValidString(job) ||
				!utf8.ValidString(run) {
				require.Error(t, err)
				require.Contains(t, err.Error(), "lock: Lock job")
				continue
			}
			if id == "" && run == "" {
				require.ErrorContains(t, err, "both IDs are empty")
				continue
			}
			if err != nil && len(component)+len(job) > 2000 {
				continue // an index of PostgreSQL's takes no more
			}
			require.NoError(t, err)
			var refusal *lock.ErrUnauthorised
			require.ErrorAs(t, l.Lock(component, id+"2", job, run, time.Hour), &refusal)
			require.Equal(t, [2]string{id, run}, [2]string{refusal.Holder().ComponentID,
				refusal.Holder().JobID})
			require.ErrorAs(t, l.Unlock(component, id, job, run+"2"), &refusal)
			require.NoError(t, l.Lock(component+"2", id, job, run, time.Hour), "another job's lock")
			require.NoError(t, l.Unlock(component, id, job, run))
			s, err := l.Status(context.Background(), component, job)
			require.NoError(t, err)
			require.Equal(t, [3]string{component, job, id}, [3]string{s.ComponentName, s.JobName,
				s.Holder.ComponentID})
			require.False(t, s.Locked)
		}
	})
}

// FuzzDurations: a lock is taken over only if it is older than the longest duration; 0 means
// never.
func FuzzDurations(f *testing.F) {
	for _, d := range []int64{0, 1, -1, 999, 1000, 1001, int64(time.Millisecond), int64(time.Second),
		int64(59 * time.Minute), int64(time.Hour), int64(61 * time.Minute),
		int64(100 * 365 * 24 * time.Hour), math.MaxInt64, math.MaxInt64 - 1,
		math.MinInt64, math.MinInt64 + 1} {
		f.Add(d)
	}
	dbs := fuzzed(f)
	f.Fuzz(func(t *testing.T, nanoseconds int64) {
		d := time.Duration(nanoseconds)
		for _, db := range dbs {
			l := lock.New(db)
			_, err := db.Exec("DELETE FROM locks")
			require.NoError(t, err)
			require.NoError(t, l.Lock("shop", "a", "job", "1", 0))
			// An hour old, as SQLite and PostgreSQL both read it.
			_, err = db.Exec("UPDATE locks SET lock_time = '" +
				time.Now().UTC().Add(-time.Hour).Format("2006-01-02 15:04:05.000000+00:00") + "'")
			require.NoError(t, err)
			err = l.Lock("shop", "b", "job", "2", d)
			switch off := d - time.Hour; {
			case d < 0:
				require.Error(t, err)
				require.False(t, errors.As(err, new(*lock.ErrUnauthorised)))
			case d > 0 && d < time.Microsecond, off > -10*time.Second && off < 10*time.Second:
				// Durations count in whole microseconds, and the test takes time.
			case d == 0 || off > 0:
				require.ErrorAs(t, err, new(*lock.ErrUnauthorised))
			default:
				require.NoError(t, err)
			}
		}
	})
}

// TestNewMemory_answersLikeEveryEngine runs random programs against the in-memory Lock and a
// database side by side. Time passes in both by moving the lock_time of all rows into the past by
// hours, and calls state whole hours, so that what a call takes doesn't matter.  -rapid.checks
// says how many programs; rapid's own default takes minutes on a durable database.
func TestNewMemory_answersLikeEveryEngine(t *testing.T) {
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		require.NoError(t, flag.Set("rapid.checks", "15"))
	}
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		db := e.Open(t)
		lock.New(db)
		rapid.Check(t, func(t *rapid.T) {
			_, err := db.Exec("DELETE FROM locks")
			require.NoError(t, err)
			memory, clock := locktest.New()
			pair := [2]*lock.Lock{memory, lock.New(db)}
			ctx := context.Background()
			names := rapid.SampledFrom([]string{"a", "b"})
			both := func(what string, call func(i int, l *lock.Lock) string) {
				answers := [2]string{call(0, pair[0]), call(1, pair[1])}
				require.Equal(t, answers[0], answers[1], what)
			}
			t.Repeat(map[string]func(*rapid.T){
				"Lock": func(t *rapid.T) {
					job, id, run, d := names.Draw(t, "job"), names.Draw(t, "id"), names.Draw(t,
						"run"), time.Duration(rapid.IntRange(-1, 3).Draw(t, "hours"))*time.Hour
					if d > 0 {
						d -= 30 * time.Minute
					}
					both("Lock", func(_ int, l *lock.Lock) string {
						return outcome(l.Lock("shop", id, job, run,
							d))
					})
				},
				"Unlock": func(t *rapid.T) {
					job, id, run := names.Draw(t, "job"), names.Draw(t, "id"), names.Draw(t, "run")
					both("Unlock", func(_ int, l *lock.Lock) string {
						return outcome(l.Unlock("shop", id, job,
							run))
					})
				},
				"set": func(t *rapid.T) {
					job, enable := names.Draw(t, "job"), rapid.Bool().Draw(t, "enable")
					both("set", func(_ int, l *lock.Lock) string {
						if enable {
							return outcome(l.Enable("shop", job))
						}
						return outcome(l.Disable("shop", job))
					})
				},
				"time": func(t *rapid.T) {
					clock.Advance(time.Hour)
					if e.SQLite() {
						_, err = db.Exec("UPDATE locks SET lock_time = strftime('%Y-%m-%d %H:%M:%f', lock_time, " +
							"'-1 hour') || '000+00:00' WHERE lock_time > '1000'")
					} else {
						_, err = db.Exec("UPDATE locks SET lock_time = lock_time - interval '1 hour' WHERE " +
							"lock_time > '1000-01-01 00:00:00+00:00'")
					}
					require.NoError(t, err)
				},
				"Acquire": func(t *rapid.T) {
					job, id, run := names.Draw(t, "job"), names.Draw(t, "id"), rapid.SampledFrom([]string{"a", "b",
						"cc"}).Draw(t, "run")
					// A lock that the same IDs have held for an hour is renewed in the background
					// at once. The row has the result only after a renewal or a release.
					release := rapid.Bool().Draw(t, "release")
					renew := rapid.Bool().Draw(t, "renew") || !release
					both("Acquire", func(_ int, l *lock.Lock) string {
						ctx, abandon := context.WithCancel(ctx)
						defer abandon()
						le, err := l.Acquire(ctx, lock.Job{ComponentName: "shop", ComponentID: id, JobName: job,
							JobID: run, TTL: 90 * time.Minute})
						if err != nil {
							return outcome(err)
						}
						answers := fmt.Sprint("granted ", le.TakenFrom() != nil)
						if renew {
							answers += " " + outcome(le.Renew(ctx))
						}
						if release {
							answers += " " + outcome(le.Release(ctx))
						}
						return answers
					})
				},
				"ForceRelease": func(t *rapid.T) {
					job, id, run := names.Draw(t, "job"), names.Draw(t, "id"), names.Draw(t, "run")
					both("ForceRelease", func(_ int, l *lock.Lock) string {
						return outcome(l.ForceRelease(ctx, "shop", job, lock.Holder{ComponentID: id, JobID: run}))
					})
				},
				"": func(t *rapid.T) {
					for _, job := range []string{"a", "b"} {
						both("Status", func(_ int, l *lock.Lock) string {
							s, err := l.Status(ctx, "shop", job)
							return fmt.Sprint(s.Enabled, s.Locked, s.Holder.ComponentID, s.Holder.JobID,
								s.Expired(30*time.Minute), outcome(err))
						})
					}
				},
			})
		})
	})
}

// outcome is the answer of a call, without what differs between engines.
func outcome(err error) string {
	var (
		held     *lock.ErrUnauthorised
		disabled *lock.ErrDisabled
		run      *lock.ErrAlreadyRun
	)
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, lock.ErrLost):
		return "lost"
	case errors.As(err, &held):
		return fmt.Sprintf("held by %s %s for %d hours", held.Holder().ComponentID, held.Holder().JobID,
			int(math.Round(held.Holder().Age.Hours())))
	case errors.As(err, &disabled):
		return "disabled"
	case errors.As(err, &run):
		return "run by " + run.Last().ComponentID + " " + run.Last().JobID
	}
	return "error"
}
