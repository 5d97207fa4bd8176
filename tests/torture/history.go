//go:build linux

// Package torture runs many clients of package lock against a database while a nemesis causes
// faults, records the answer of every call, and decides whether a correct lock could have given
// them.
package torture

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Kind is the call of an Op.
type Kind string

// The calls. The model of the row has Lock to Status, and Write, which may only happen within a
// term.
const (
	Lock    Kind = "Lock"
	Unlock  Kind = "Unlock"
	Enable  Kind = "Enable"
	Disable Kind = "Disable"
	Acquire Kind = "Acquire"
	Renew   Kind = "Renew"   // one statement: most renewals are made in the background
	Renewed Kind = "Renewed" // the answer of Lease.Renew to its caller
	Release Kind = "Release"
	Force   Kind = "ForceRelease"
	Status  Kind = "Status"
	Write   Kind = "Write" // a transaction with Lease.Check in it
	Trust   Kind = "Trust" // a look at Lease.Err, which was nil
	Ended   Kind = "Ended" // the observer's event of a lost lease

	held Kind = "held" // a Release in doubt, see model.go
	gone Kind = "gone"
	end  Kind = "end" // of the history
)

// Result is the result of a call.
type Result string

// Failed means that the library says that the database has not executed the call, Unknown that
// nobody can say. A call without a result, because its process was killed, counts as Unknown.
const (
	OK          Result = "ok"
	Refused     Result = "refused"
	JobDisabled Result = "disabled"
	AlreadyRun  Result = "already run"
	Lost        Result = "lost"
	Nothing     Result = "nothing" // a Renew that wrote nothing
	Failed      Result = "failed"
	Unknown     Result = "unknown"
)

// An Op is a call and its return.
type Op struct {
	ID int64 `json:"id"`
	// Parent is the call, if the Op is an attempt whose outcome the call does not know.
	Parent int64  `json:"parent,omitempty"`
	Client int    `json:"client"`
	Kind   Kind   `json:"kind"`
	Job    string `json:"job"`
	Owner  string `json:"owner,omitempty"` // both IDs
	Max    int64  `json:"max,omitempty"`   // the longest duration, in microseconds
	Lease  int64  `json:"lease,omitempty"` // its token; of a ForceRelease the lock_time that it names
	// A Renew whose answer the lease did not get, and an attempt that was lost; a Release of
	// which an attempt before the last may have taken effect.
	Unheard bool `json:"unheard,omitempty"`
	// The tick, in seconds since 1970, that is to be run; 0 means that the run is no tick. A
	// Release that gives it back leaves the one before it in the row.
	Tick  int64 `json:"tick,omitempty"`
	Back  bool  `json:"back,omitempty"`
	Doubt bool  `json:"-"`

	// CLOCK_MONOTONIC, which all processes of a machine share, in nanoseconds.
	Call   int64 `json:"call"`
	Return int64 `json:"return,omitempty"`
	// The bounds of the execution, by the database's clock, in microseconds since 1970.
	Since  int64 `json:"since"`
	Before int64 `json:"before,omitempty"`

	Result Result `json:"result,omitempty"`
	Token  int64  `json:"token,omitempty"` // OK: the lock_time that was written or found
	// Refused, AlreadyRun, Status: the row.
	Holder   string `json:"holder,omitempty"`
	Seen     int64  `json:"seen,omitempty"` // its tick
	LockTime int64  `json:"lock_time,omitempty"`
	Age      int64  `json:"age,omitempty"`
	Locked   bool   `json:"locked,omitempty"`
	Enabled  bool   `json:"enabled,omitempty"`

	Why string `json:"why,omitempty"`
}

const forever = math.MaxInt64

func (o Op) open() bool { return o.Result == "" || o.Result == Unknown }

// leaves returns the tick that a release leaves in the row.
func (o Op) leaves() int64 {
	if o.Back {
		return o.Tick - 1
	}
	return o.Tick
}

// name is that of the kind.
func (o Op) name() string {
	if o.Back {
		return "GiveBack"
	}
	return string(o.Kind)
}

// short is what fits into a box of the picture.
func (o Op) short() string {
	s := strings.TrimSpace(fmt.Sprintf("%s %s", o.name(), o.Owner))
	if o.Result == Refused {
		return s + ": held by " + o.Holder
	}
	return s + ": " + string(o.Result)
}

func (o Op) String() string {
	s := fmt.Sprintf("%-12s %-14s %-9s", o.name(), o.Owner, o.Result)
	if o.Tick != 0 {
		s += fmt.Sprintf(" tick %d", o.Tick)
	}
	if o.Token != 0 {
		s += fmt.Sprintf(" lock_time %d", o.Token)
	}
	if o.Lease != 0 {
		s += fmt.Sprintf(" token %d", o.Lease)
	}
	if o.Holder != "" {
		s += fmt.Sprintf(" row: %s since %d, age %d, locked %v, tick %d", o.Holder, o.LockTime, o.Age,
			o.Locked, o.Seen)
	}
	if o.Kind == Lock || o.Kind == Acquire {
		s += fmt.Sprintf(" longest %d", o.Max)
	}
	return s
}

// monotonic and wall bypass package time, so that a process with a wrong clock (see skew.go)
// records the right time. The database is on the same machine, so wall is its clock, too.
func monotonic() int64 { return clock(unix.CLOCK_MONOTONIC) }
func wall() int64      { return clock(unix.CLOCK_REALTIME) / 1000 }

func clock(which int32) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(which, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// A Log writes a history to a file, each line with one write, so that calls are recorded even if
// the process is killed.
type Log struct {
	client int
	last   atomic.Int64

	progress io.Writer // nil, or it gets a byte for each operation

	mu sync.Mutex
	f  *os.File
}

// NewLog appends to the file. No two Logs of a history have the same number.
func NewLog(path string, number int) (*Log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	l := &Log{client: number, f: f}
	l.last.Store(int64(number) << 32)
	return l, err
}

// Begin records a call, End its return.
func (l *Log) Begin(o Op) *Op {
	o.ID, o.Call, o.Since = l.last.Add(1), monotonic(), wall()
	l.write(o)
	return &o
}

// End records the return of a call.
func (l *Log) End(o *Op) {
	o.Before, o.Return = wall(), monotonic()
	l.write(*o)
	if l.progress != nil && o.counts() {
		l.progress.Write([]byte{'.'})
	}
}

// attempt records that a statement on behalf of o has failed, or that its outcome is unknown.
func (l *Log) attempt(o Op, call, since int64, result Result, why error) {
	o.Parent, o.ID, o.Call, o.Since, o.Result, o.Why = o.ID, l.last.Add(1), call, since, result,
		why.Error()
	l.write(o)
}

// done records that a statement on behalf of o has taken effect, which the call does not know.
func (l *Log) done(o Op, call, since, written int64) {
	o.Parent, o.ID, o.Call, o.Since, o.Result, o.Token = o.ID, l.last.Add(1), call, since, OK, written
	o.Return, o.Before = monotonic(), wall()
	l.write(o)
}

func (l *Log) write(o Op) {
	line, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.f.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// ReadHistory reads the files of Logs, in the order of the calls.
func ReadHistory(paths ...string) ([]Op, error) {
	ops := map[int64]Op{}
	for _, path := range paths {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // the process was killed before it began
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var o Op
			// the last line of a process that was killed may be half a line
			if json.Unmarshal(lines.Bytes(), &o) == nil {
				ops[o.ID] = o
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	// The releases of a lease that are in doubt, from the first attempt on.
	type doubt struct {
		first Op
		lost  bool
	}
	doubts := map[string]doubt{}
	for _, o := range ops {
		if d := doubts[o.Owner]; o.Kind == Release {
			done := o.Parent != 0 && (o.Result == OK || o.Unheard)
			if (o.open() || done) && (d.first.Call == 0 || o.Call < d.first.Call) {
				d.first = o
			}
			d.lost = d.lost || o.Result == Lost
			doubts[o.Owner] = d
		}
	}
	var all []Op
	for _, o := range ops {
		// If a call failed or a release was refused, the library says that none of its attempts
		// took effect. That is believed, and checked.
		parent := ops[o.Parent]
		switch d := doubts[o.Owner]; {
		case o.Result == Failed, o.Parent != 0 && o.open() && parent.Result == Failed,
			o.Parent != 0 && o.open() && parent.Result == Refused &&
				(parent.Kind == Unlock || parent.Kind == Force),
			o.Kind == Release && o.open() && d.lost:
			continue
		case o.Kind == Release && o.Result == OK && o.Parent == 0 && d.first.Call != 0:
			o.Doubt, o.Call, o.Since = true, min(o.Call, d.first.Call), min(o.Since, d.first.Since)
		}
		if o.Kind == Acquire && o.Result == "" {
			// Its process was killed. If it was granted too late, it may have been released again
			// before that.
			all = append(all, Op{ID: -o.ID, Parent: o.ID, Client: o.Client, Kind: Release, Job: o.Job,
				Owner: o.Owner, Tick: o.Tick, Back: o.Tick != 0,
				Call: o.Call, Since: o.Since, Result: Unknown, Return: forever, Before: forever})
		}
		if o.open() {
			o.Result, o.Return, o.Before = Unknown, forever, forever
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b Op) int {
		return cmp.Or(cmp.Compare(a.Call, b.Call),
			cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}
