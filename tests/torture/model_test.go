//go:build linux

package torture

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// at places an operation in time: it was called at ms and returned a millisecond later, and the
// database's clock shows the same.
func at(ms int64, o Op) Op {
	o.ID, o.Job, o.Call, o.Return, o.Since, o.Before = ms, "j", ms*1e6, ms*1e6+1e6, ms*1e3, ms*1e3+1e3
	if o.Result == Unknown {
		o.Return, o.Before = forever, forever
	}
	return o
}

func granted(ms int64, owner string) Op {
	return at(ms, Op{Kind: Lock, Owner: owner, Max: 100_000, Result: OK, Token: ms*1e3 + 500})
}

func acquired(ms int64, owner string) Op {
	o := granted(ms, owner)
	o.Kind = Acquire
	return o
}

func refused(ms int64, owner, holder string, since int64) Op {
	return at(ms, Op{Kind: Lock, Owner: owner, Max: 100_000, Result: Refused, Holder: holder,
		LockTime: since*1e3 + 500, Age: (ms - since) * 1e3})
}

func renewed(ms, lease int64) Op {
	return at(ms, Op{Kind: Renew, Owner: "a/1", Lease: lease*1e3 + 500, Max: 100_000, Result: OK,
		Token: ms*1e3 + 500})
}

func unheard(ms, lease int64) Op {
	o := renewed(ms, lease)
	o.Unheard = true
	return o
}

// doubtful is a release in doubt that succeeds.
func doubtful(from, to int64) Op {
	o := at(from, Op{Kind: Release, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: OK,
		Doubt: true})
	o.ID, o.Return, o.Before = to, to*1e6, to*1e3
	return o
}

func unlocked(ms int64, owner string) Op {
	return at(ms,
		Op{Kind: Unlock, Owner: owner, Result: OK})
}

// ticked is an acquisition of a tick, left and back its release, already a refusal because of a/1.
func ticked(ms int64, owner string, tick int64) Op {
	o := acquired(ms, owner)
	o.Tick = tick
	return o
}

func left(ms int64, owner string, tick int64) Op {
	return at(ms, Op{Kind: Release, Owner: owner, Max: 100_000, Result: OK, Tick: tick})
}

func back(ms int64, owner string, tick int64) Op {
	o := left(ms, owner, tick)
	o.Back = true
	return o
}

func already(ms int64, owner string, tick, seen int64, running bool) Op {
	return at(ms, Op{Kind: Acquire, Owner: owner, Max: 100_000, Result: AlreadyRun, Tick: tick,
		Holder: "a/1", LockTime: 10_500, Age: (ms - 10) * 1e3, Seen: seen, Locked: running})
}

func unknown(ms int64, k Kind, owner string) Op {
	return at(ms, Op{Kind: k, Owner: owner, Max: 100_000, Result: Unknown})
}

// TestCheck_model has histories that a person can judge.
func TestCheck_model(t *testing.T) {
	again := granted(20, "a/1")
	again.Token = 10_500
	for _, test := range []struct {
		name   string
		lawful bool
		ops    []Op
	}{
		{"one after the other", true, []Op{granted(10, "a/1"), unlocked(20, "a/1"), granted(30, "b/1")}},
		{"two at once", false, []Op{granted(10, "a/1"), granted(30, "b/1")}},
		{"a takeover in time", true, []Op{granted(10, "a/1"), granted(111, "b/1")}},
		{"a takeover too early", false, []Op{granted(10, "a/1"), granted(109, "b/1")}},
		{"a takeover that a renewal forbids", false, []Op{granted(10, "a/1"), renewed(60, 10),
			granted(120, "b/1")}},
		{"a renewal after a takeover", false, []Op{granted(10, "a/1"), granted(120, "b/1"),
			renewed(130, 10)}},
		{"a renewal of what has expired", false, []Op{granted(10, "a/1"), renewed(120, 10)}},
		{"a refusal", true, []Op{granted(10, "a/1"), refused(20, "b/1", "a/1", 10)}},
		{"a refusal that names another", false, []Op{granted(10, "a/1"), refused(20, "b/1", "c/1", 10)}},
		{"a refusal by an expired lock", false, []Op{granted(10, "a/1"), refused(120, "b/1", "a/1", 10)}},
		{"a refusal by nobody", false, []Op{granted(10, "a/1"), unlocked(20, "a/1"),
			refused(30, "b/1", "a/1", 10)}},
		{"the same again", true, []Op{granted(10, "a/1"), again}},
		{"the same again with a new term", false, []Op{granted(10, "a/1"), granted(20, "a/1")}},
		{"an unlock by another", false, []Op{granted(10, "a/1"), unlocked(20, "b/1")}},
		{"disabled by somebody", true, []Op{at(5, Op{Kind: Disable, Result: OK}),
			at(10, Op{Kind: Lock, Owner: "a/1", Result: JobDisabled})}},
		{"disabled by nobody", false, []Op{at(10, Op{Kind: Lock, Owner: "a/1", Result: JobDisabled})}},
		{"granted although disabled", false, []Op{at(5, Op{Kind: Disable, Result: OK}),
			granted(10, "a/1")}},
		{"granted, perhaps disabled", true, []Op{unknown(5, Disable, ""), granted(10, "a/1")}},
		{"disabled late", true, []Op{unknown(5, Disable, ""), granted(10, "a/1"),
			at(20, Op{Kind: Lock, Owner: "b/1", Result: JobDisabled})}},
		{"an unlock that took effect late", true, []Op{granted(10, "a/1"), unknown(20, Unlock, "a/1"),
			refused(30, "b/1", "a/1", 10), granted(40, "b/1")}},
		{"a lock of which only others learned", true, []Op{unknown(10, Lock, "a/1"),
			refused(20, "b/1", "a/1", 10)}},
		{"a lock that was granted too late and given back at once", true,
			[]Op{unknown(10, Acquire, "a/1"), unknown(10, Release, "a/1"), refused(20, "b/1", "a/1", 10),
				granted(30, "b/1")}},
		{"one that was, of an expired lock, and nobody saw it", true,
			[]Op{granted(10, "a/1"), unknown(120, Acquire, "b/1"), unknown(120, Release, "b/1"),
				at(130, Op{Kind: Release, Owner: "a/1", Lease: 10_500, Result: Lost})}},
		{"a lock of nobody", false, []Op{refused(20, "b/1", "a/1", 10)}},
		{"a renewal of what its own renewal, unheard, has moved", true,
			[]Op{granted(10, "a/1"), unheard(40, 10), renewed(60, 10)}},
		{"a renewal that writes nothing since its own, unheard, has moved the lock_time", false,
			[]Op{granted(10, "a/1"), unheard(40, 10),
				at(60, Op{Kind: Renew, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: Nothing})}},
		{"one that writes nothing since its own, perhaps, has", false, []Op{granted(10, "a/1"),
			at(40, Op{Kind: Renew, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: Unknown}),
			at(60, Op{Kind: Renew, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: Nothing})}},
		{"one that writes nothing after the time that the lease knows of", true,
			[]Op{granted(10, "a/1"), unheard(40, 10),
				at(120, Op{Kind: Renew, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: Nothing})}},
		{"a lease lost that is well", false, []Op{granted(10, "a/1"),
			at(60, Op{Kind: Release, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: Lost})}},
		{"a lease lost to itself", false, []Op{granted(10, "a/1"), unheard(40, 10),
			at(60, Op{Kind: Release, Owner: "a/1", Holder: "a/1", LockTime: 40_500, Lease: 10_500,
				Max: 100_000, Result: Lost})}},
		{"a lease that was released by force", true, []Op{granted(10, "a/1"),
			at(40, Op{Kind: Force, Owner: "a/1", Lease: 10_500, Result: OK}),
			at(60, Op{Kind: Release, Owner: "a/1", Lease: 10_500, Max: 100_000, Result: Lost})}},
		{"a release by force of who has renewed since", false,
			[]Op{granted(10, "a/1"), renewed(40, 10), at(60, Op{Kind: Force, Owner: "a/1", Lease: 10_500,
				Result: OK})}},
		{"a release in doubt of what another has come to hold", true,
			[]Op{granted(10, "a/1"), unknown(20, Release, "a/1"), granted(25, "b/1"), doubtful(20, 30)}},
		{"one of what was released by force before", true, []Op{granted(10, "a/1"),
			at(15, Op{Kind: Force, Owner: "a/1", Lease: 10_500, Result: OK}), granted(17, "b/1"),
			doubtful(20, 30)}},
		{"one that never was its own", false, []Op{granted(10, "b/1"), unknown(20, Release, "a/1"),
			doubtful(20, 30)}},
		{"one that has not released it", false, []Op{granted(10, "a/1"), doubtful(20, 30),
			refused(40, "b/1", "a/1", 10)}},
		{"a write within the term", true, []Op{granted(10, "a/1"),
			at(20, Op{Kind: Write, Owner: "a/1", Lease: 10_500, Result: OK})}},
		{"a write after it", false, []Op{granted(10, "a/1"), granted(120, "b/1"),
			at(130, Op{Kind: Write, Owner: "a/1", Lease: 10_500, Result: OK})}},
		{"a token that repeats", false, []Op{granted(10, "a/1"), unlocked(20, "a/1"),
			func() Op { o := granted(10, "b/1"); o.Call, o.Return = 30e6, 31e6; return o }()}},
		{"a tick after the one before", true, []Op{ticked(10, "a/1", 1), left(20, "a/1", 1),
			ticked(30, "b/1", 2)}},
		{"a tick twice", false, []Op{ticked(10, "a/1", 1), left(20, "a/1", 1), ticked(30, "b/1", 1)}},
		{"a tick after a later one", false, []Op{ticked(10, "a/1", 2), left(20, "a/1", 2),
			ticked(30, "b/1", 1)}},
		{"a tick again whose run never ended", true, []Op{ticked(10, "a/1", 1), ticked(111, "b/1", 1)}},
		{"a tick again that was given back", true, []Op{ticked(10, "a/1", 2), back(20, "a/1", 2),
			ticked(30, "b/1", 2)}},
		{"a tick before one that was given back", false, []Op{ticked(10, "a/1", 2), back(20, "a/1", 2),
			ticked(30, "b/1", 1)}},
		{"a tick already run", true, []Op{ticked(10, "a/1", 1), left(20, "a/1", 1),
			already(30, "b/1", 1, 1, false)}},
		{"a tick already run that was given back", false, []Op{ticked(10, "a/1", 2),
			back(20, "a/1", 2), already(30, "b/1", 2, 2, false)}},
		{"a tick that is being run", true, []Op{ticked(10, "a/1", 1), already(30, "b/1", 1, 1, true)}},
		{"a tick that is being run by who has died", false, []Op{ticked(10, "a/1", 1),
			already(120, "b/1", 1, 1, true)}},
		{"a tick barred by one that is being run by who has died", true, []Op{ticked(10, "a/1", 2),
			already(120, "b/1", 1, 2, true)}},
		{"a token by another clock", false, []Op{func() Op {
			o := granted(10,
				"a/1")
			o.Token += 5000
			return o
		}()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var written []Written
			for _, o := range test.ops {
				if o.Kind == Write {
					written = append(written, Written{"j", o.Lease, o.ID})
				}
			}
			v := Check(test.ops, written)
			if test.lawful {
				require.Empty(t, v.Violations)
				return
			}
			require.Len(t, v.Violations, 1)
			require.NotNil(t, v.Violations[0].History)
		})
	}
}

// TestCheck_shortest: the printed history has only what is needed to see the violation, and what
// an answer refers to.
func TestCheck_shortest(t *testing.T) {
	// It takes so long that somebody else is always at work.
	enable := at(24, Op{Kind: Enable, Result: OK})
	enable.Return = 65e6
	others := []Op{granted(10, "a/1"), refused(12, "b/1", "a/1", 10), unlocked(20, "a/1"),
		at(22, Op{Kind: Disable, Result: OK}), enable,
		granted(30, "c/1"), at(44, Op{Kind: Force, Owner: "c/1", Lease: 30_500, Result: OK})}
	for _, test := range []struct {
		name     string
		violated []Op
	}{
		{"two at once", []Op{granted(50, "d/1"), granted(70, "e/1")}},
		{"a refusal by one whose time is over", []Op{granted(50, "d/1"), refused(160, "e/1", "d/1", 50)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := Check(slices.Concat(others, test.violated), nil)
			require.Len(t, v.Violations, 1)
			require.Equal(t, test.violated, v.Violations[0].History)
		})
	}
}

// TestReadHistory_killedAcquire may have been granted too late and released again without a
// record. One that returned would have recorded it.
func TestReadHistory_killedAcquire(t *testing.T) {
	for result, violations := range map[Result]int{"": 0, Unknown: 1} {
		path := filepath.Join(t.TempDir(), "log")
		log, err := NewLog(path, 1)
		require.NoError(t, err)
		acquire := at(10, Op{Kind: Acquire, Owner: "a/1", Max: 100_000, Result: result})
		for _, o := range []Op{acquire, refused(20, "b/1", "a/1", 10), granted(30, "b/1")} {
			log.write(o)
		}
		history, err := ReadHistory(path)
		require.NoError(t, err)
		v := Check(history, nil)
		require.Len(t, v.Violations, violations, "result %q", result)
		require.Equal(t, 3, v.Operations)
	}
}

// TestReadHistory_failedAttempt leaves no doubt about a release: its answer is what it did.
func TestReadHistory_failedAttempt(t *testing.T) {
	for result, doubt := range map[Result]bool{Failed: false, Unknown: true, OK: true} {
		path := filepath.Join(t.TempDir(), "log")
		log, err := NewLog(path, 1)
		require.NoError(t, err)
		release := at(20, Op{Kind: Release, Owner: "a/1", Lease: 10_500, Result: OK})
		for _, o := range []Op{granted(10, "a/1"), release,
			at(21, Op{Kind: Release, Owner: "a/1", Lease: 10_500, Parent: 20, Result: result})} {
			log.write(o)
		}
		history, err := ReadHistory(path)
		require.NoError(t, err)
		require.Equal(t, doubt, history[1].Doubt, result)
		require.Empty(t, Check(history, nil).Violations, result)
	}
}

// TestCheck_invariants checks each invariant without the model.
func TestCheck_invariants(t *testing.T) {
	write := at(20, Op{Kind: Write, Owner: "a/1", Lease: 10_500, Result: OK})
	for _, test := range []struct {
		name    string
		ops     []Op
		written []Written
		says    string
	}{
		{"lawful", []Op{granted(10, "a/1"), write, unlocked(30, "a/1"), granted(40, "b/1")},
			[]Written{{"j", 10_500, 20}}, ""},
		{"two holders", []Op{granted(10, "a/1"), granted(30, "b/1")}, nil, "two holders"},
		{"two holders after a renewal", []Op{granted(10, "a/1"), renewed(60, 10), granted(120, "b/1")},
			nil, "two holders"},
		{"a tick twice", []Op{ticked(10, "a/1", 1), left(20, "a/1", 1), ticked(30, "b/1", 1)}, nil,
			"a tick that was run before"},
		{"a tick after a later one", []Op{ticked(10, "a/1", 2), back(20, "a/1", 2),
			ticked(30, "b/1", 1)}, nil, "a tick after a later one"},
		{"the same token", []Op{granted(10, "a/1"), unlocked(20, "a/1"), granted(10, "b/1")}, nil,
			"a token twice"},
		{"a smaller token", []Op{granted(30, "a/1"), unlocked(32, "a/1"),
			func() Op { o := granted(10, "b/1"); o.Call, o.Return = 40e6, 41e6; return o }()}, nil,
			"larger than that of an acquisition after it"},
		{"a stale write", []Op{granted(10, "a/1"), write}, []Written{{"j", 20_500, 21},
			{"j", 10_500, 20}}, "was committed after"},
		{"a lost write", []Op{granted(10, "a/1"), write}, nil, "is gone"},
		{"disabled by nobody", []Op{at(10, Op{Kind: Lock, Owner: "a/1", Result: JobDisabled})}, nil,
			"nobody had asked for"},
		{"enabled by nobody", []Op{at(5, Op{Kind: Disable, Result: OK}), granted(10, "a/1")}, nil,
			"nobody had asked for"},
		{"a refusal of what was released", []Op{granted(10, "a/1"),
			at(20, Op{Kind: Unlock, Owner: "a/1", Parent: 30, Result: OK}),
			at(30, Op{Kind: Unlock, Owner: "a/1", Result: Refused, Holder: "b/1"})}, nil,
			"although it was done"},
		{"a lease lost that was released", []Op{granted(10, "a/1"),
			at(20, Op{Kind: Release, Owner: "a/1", Parent: 25, Result: OK}),
			at(25, Op{Kind: Release, Owner: "a/1", Result: Unknown}),
			at(30, Op{Kind: Release, Owner: "a/1", Result: Lost, Holder: "b/1"})}, nil,
			"although it was done"},
		{"a failure of what was done", []Op{at(20, Op{Kind: Unlock, Owner: "a/1", Parent: 15,
			Result: OK})}, nil, "although it was done"},
		{"a lease called lost that is well", []Op{acquired(10, "a/1"),
			at(60, Op{Kind: Ended, Owner: "a/1", Max: 100_000, Result: OK,
				Why: "it could not be renewed in time"})}, nil, "although it is well"},
		{"a lease called lost in time", []Op{acquired(10, "a/1"),
			at(101, Op{Kind: Ended, Owner: "a/1", Max: 100_000, Result: OK,
				Why: "it could not be renewed in time"})}, nil, ""},
		{"trust that is misplaced", []Op{granted(10, "a/1"), granted(120, "b/1"),
			at(125, Op{Kind: Trust, Owner: "a/1", Lease: 10_500, Result: OK})}, nil, "trusted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := invariants(test.ops, test.written)
			if test.says == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Contains(t, strings.Join(found, "\n"), test.says)
		})
	}
}
