package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReadDialects(t *testing.T) {
	d := ReadDialects(os.DirFS("../../sql"))
	names := []string{"create", "acquire", "renew", "release", "enable", "delete", "get", "fence",
		"probe", "list", "problems"}
	for _, each := range []struct {
		*dialect
		own []string
	}{
		{d.postgres, []string{"hides"}},
		{d.cockroach, []string{"peek", "peek_plain", "insert"}},
		{d.sqlite, []string{"peek"}},
	} {
		for _, name := range append(names, each.own...) {
			require.NotEmpty(t, each.statements[name], name)
		}
		for name := range each.statements {
			text := each.with(`"a""b"."locks"`).text(name)
			require.NotContains(t, text, "{table}", name)
			if (each.name != SQLite || name != "problems") && name != "clock" {
				require.Contains(t, text, `"a""b"."locks"`, name)
			}
			require.NotContains(t, text, "--", name)
			require.NotRegexp(t, regexp.MustCompile(`;\s*$`), text, name)
		}
	}
	require.Panics(t, func() { d.sqlite.text("hides") })
	require.Empty(t, d.sqlite.statements["hides"])
	require.Panics(t, func() { ReadDialects(fstest.MapFS{}) })
	require.Equal(t, map[string]string{"a": "SELECT 1\nFROM {table}", "b": "x"},
		parse("-- About\n-- name: a\n-- of a\nSELECT 1\n-- inner\nFROM {table};\n\n-- name: b\nx\n"))
	require.Equal(t, "SELECT $lock$'t'$lock$", d.postgres.of("SELECT '{table}'", "'t'"))
	require.Equal(t, `SELECT '''t"', 'a.b'`, d.sqlite.of("SELECT '{table}'", `"a.b"."'t"""`))
	require.Equal(t, "SELECT 'locks'", d.sqlite.of("SELECT '{table}'", "locks"))
	require.Equal(t, `SELECT 'a"."b'`, d.sqlite.of("SELECT '{table}'", `"a"".""b"`))
}

// of returns a statement with the name of a table put in.
func (d *dialect) of(text, table string) string {
	return (&dialect{name: d.name, statements: map[string]string{"x": text}}).with(table).text("x")
}

// state is an error as drivers for PostgreSQL make them.
type state string

func (s state) Error() string    { return "failure " + string(s) }
func (s state) SQLState() string { return string(s) }

// told is one with a text.
type told struct {
	state
	text string
}

func (e told) Error() string { return e.text }

// unsent is one of pgx's.
type unsent struct{ error }

func (unsent) SafeToRetry() bool { return true }
func (e unsent) Unwrap() error   { return e.error }

func TestErrors(t *testing.T) {
	closedDB := errors.New("sql: database is closed")
	for _, test := range []struct {
		err                      error
		curable, passing, doubts bool
	}{
		{state("40001"), true, true, false},
		{fmt.Errorf("wrapped: %w", state("40001")), true, true, false},
		{state("40003"), true, true, true},
		{state("40P01"), true, true, false},
		{state("53300"), true, true, false},
		{state("57P01"), true, true, true},
		{state("57P02"), true, true, true},
		{state("57P03"), true, true, false},
		{state("57P05"), true, true, false},
		{state("08006"), true, true, true},
		{state("08P01"), true, true, true},
		{state("25006"), true, true, false},
		{state("26000"), true, true, false},
		{state("42P05"), true, true, false},
		{told{"0A000", "cached plan must not change result type"}, true, true, false},
		{told{"0A000", "not supported"}, false, false, false},
		{told{"57014", "canceling statement due to statement timeout"}, false, true, false},
		{told{"57014", "query execution canceled"}, true, true, true},
		// database/sql may have tried before
		{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, true, true, true},
		{state("55P03"), false, true, false},
		{state("42501"), false, false, false},
		{state("22001"), false, false, false},
		{state("XX000"), false, false, false},
		{connectError{state("XX000")}, true, true, false},
		{connectError{errors.New("no such host")}, true, true, true},
		{connectError{state("28P01")}, false, false, false},
		{connectError{state("3D000")}, false, false, false},
		{connectError{closedDB}, false, false, false},
		{attemptTimeout{context.DeadlineExceeded}, true, true, true},
		{driver.ErrBadConn, true, true, true},
		{unsent{driver.ErrBadConn}, true, true, false},
		{io.EOF, true, true, true},
		{fmt.Errorf("receiving: %w", io.ErrUnexpectedEOF), true, true, true},
		{&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}, true, true, true},
		{syscall.EPIPE, true, true, true},
		{sql.ErrConnDone, false, false, false},
		{sql.ErrTxDone, false, false, false},
		{errNoRow, false, false, false},
		{closedDB, false, false, false},
		{errors.New("unheard of"), false, false, true},
		{context.Canceled, false, false, true},
	} {
		require.Equal(t, test.curable, Curable(test.err), "curable: %v", test.err)
		require.Equal(t, test.passing, Passing(test.err), "passing: %v", test.err)
		if _, connecting := test.err.(connectError); !connecting { // otherwise no statement was sent
			require.Equal(t, test.doubts, inDoubt(test.err), "in doubt: %v", test.err)
		}
	}
}

func TestPolicy_backoff(t *testing.T) {
	for _, p := range []Policy{{}, {Backoff: time.Second, MaxBackoff: 3 * time.Second}} {
		most := max(p.Backoff, 10*time.Millisecond)
		for attempt := 1; attempt < 20; attempt++ {
			for range 20 {
				d := p.backoff(attempt)
				require.LessOrEqual(t, d, most)
				require.GreaterOrEqual(t, d, most/2)
			}
			most = min(2*most, max(p.MaxBackoff, time.Second))
		}
	}
}

func TestTerm(t *testing.T) {
	t0 := time.Unix(1000, 0).UTC()
	r := Request{ComponentID: "a", JobID: "1"}
	rec := func(after time.Duration) Record {
		return Record{Locked: true, ComponentID: "a", JobID: "1", LockTime: t0.Add(after)}
	}
	exact := Term{First: t0, Last: t0, TTL: time.Minute}
	doubt, forever := exact.Widen(), Term{First: t0}.Widen()
	for _, test := range []struct {
		term  Term
		after time.Duration
		holds bool
	}{
		{exact, 0, true}, {exact, time.Microsecond, false}, {exact, -time.Microsecond, false},
		{doubt, 0, true}, {doubt, time.Minute, true}, {doubt, time.Minute + time.Microsecond,
			false}, {doubt, -time.Microsecond, false},
		{forever, 1000 * time.Hour, true}, {forever, -time.Microsecond, false},
		{Term{}, 0, true}, {Term{TTL: time.Minute}, -1000 * time.Hour, true},
	} {
		require.Equal(t, test.holds, test.term.Holds(r, rec(test.after)), test)
	}
	for _, other := range []Record{{}, {Locked: true, ComponentID: "b", JobID: "1", LockTime: t0},
		{Locked: true, ComponentID: "a", JobID: "2", LockTime: t0},
		{ComponentID: "a", JobID: "1", LockTime: t0}} {
		require.False(t, exact.Holds(r, other))
	}
}

// TestMemory has what the specification, which is run on it too, can't see on every engine.
func TestMemory(t *testing.T) {
	now := time.Unix(1000, 0)
	m := NewMemory(func() time.Time { return now })
	ctx := context.Background()
	a, b := Request{JobName: "j", ComponentID: "a"}, Request{JobName: "j", ComponentID: "b"}
	acquire := func(r Request, cond Conditions) Result {
		res, err := m.Acquire(ctx, r, cond)
		require.NoError(t, err)
		return res
	}
	first := acquire(a, Conditions{TTL: time.Minute})
	require.True(t, first.Done)
	now = now.Add(time.Minute)
	require.Equal(t, Held, acquire(b, Conditions{TTL: time.Minute}).Refusal, "at the very end")
	res, err := m.Renew(ctx, a, Term{First: first.Written, Last: first.Written, TTL: time.Minute})
	require.NoError(t, err)
	require.True(t, res.Done, "at the very end")
	now = now.Add(time.Minute + time.Microsecond)
	stale, _ := m.Renew(ctx, a, Term{First: res.Written, Last: res.Written, TTL: time.Minute})
	require.False(t, stale.Done, "expired")
	taken := acquire(b, Conditions{TTL: time.Minute})
	require.True(t, taken.Done && taken.Prev.HeldBy(a))
	require.True(t, taken.Written.After(res.Written))
	released, _ := m.Release(ctx, b, Term{}, "x")
	require.True(t, released.Done)
	now = now.Add(time.Hour)
	require.Equal(t, Already, acquire(a, Conditions{Spacing: time.Hour}).Refusal, "at the very end")
	now = now.Add(time.Microsecond)
	require.True(t, acquire(a, Conditions{Spacing: time.Hour}).Done)
	rec, _ := m.Get(ctx, Request{JobName: "none"})
	require.False(t, rec.Exists)
	for range m.List(ctx, a) {
		break
	}
}

func TestIsTick(t *testing.T) {
	require.True(t, isTick("2026-03-29T02:00:00Z"))
	for _, run := range []string{"", "run-1", "2026-03-29T02:00:00Z/X", "2026-03-29T02:00:00+01:00"} {
		require.False(t, isTick(run), run)
	}
}

func TestScan(t *testing.T) {
	var s scalar
	for want, v := range map[string]any{"1": int64(1), "a": "a", "b": []byte("b"), "": nil} {
		require.NoError(t, s.Scan(v))
		require.Equal(t, scalar{want, v != nil}, s)
	}
	require.Error(t, s.Scan(1.5))
	require.NoError(t, s.Scan(time.UnixMicro(7)))
	require.Equal(t, "7", s.text)
	var m microsecond
	require.NoError(t, m.Scan("-62135596800000000"))
	require.Equal(t, earliest, time.Time(m))
	require.Error(t, m.Scan("x"))
	require.Error(t, m.Scan(true))
	for v, want := range map[any]time.Time{"infinity": latest, "-infinity": earliest,
		nil: time.UnixMicro(7).UTC(), int64(7): time.UnixMicro(7).UTC()} {
		m = microsecond(time.UnixMicro(7).UTC())
		require.NoError(t, m.Scan(v))
		require.Equal(t, want, time.Time(m), "%v", v)
	}
	rec := Record{ComponentID: "a", Enabled: true}
	for _, c := range rec.columns() {
		require.NoError(t, c.(sql.Scanner).Scan(nil))
	}
	require.Equal(t, Record{ComponentID: "a", Enabled: true}, rec, "NULL leaves it as it is")
	require.Error(t, column[bool]{&rec.Enabled}.Scan("maybe"))
	require.True(t, scalar{}.time().IsZero())
	require.Equal(t, "1", micros(1999*time.Nanosecond))
	require.Nil(t, micros(0))
	for _, instant := range []func(time.Time) any{microseconds, timestamp} {
		require.Nil(t, instant(time.Time{}))
		require.Nil(t, instant(latest))
	}
	require.Equal(t, "-1", microseconds(time.UnixMicro(-1)))
	require.Equal(t, "1969-12-31T23:59:59.999999Z", timestamp(time.UnixMicro(-1)))
}

func TestQuote(t *testing.T) {
	require.Equal(t, `"a\"b"`, Quote(`a"b`))
	require.Contains(t, Quote(strings.Repeat("x", 1000)), "… (1000 bytes)")
}

// mute is a database that doesn't answer before its context ends.
type mute struct{ asked time.Duration }

func (*mute) Exec(string, ...any) (sql.Result, error)                  { select {} }
func (*mute) QueryRow(string, ...any) *sql.Row                         { select {} }
func (*mute) QueryRowContext(context.Context, string, ...any) *sql.Row { return nil }
func (m *mute) ExecContext(ctx context.Context, _ string, _ ...any) (sql.Result, error) {
	begun := time.Now()
	<-ctx.Done()
	m.asked = time.Since(begun)
	return nil, ctx.Err()
}

func TestNewTable_mute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m mute
		NewTable(&m, Config{Dialects: ReadDialects(os.DirFS("../../sql")), Table: "locks"})
		require.Equal(t, createTimeout, m.asked)
	})
}
