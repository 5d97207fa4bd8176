//go:build linux

package torture

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkTimeout limits the search for an order of one job's calls, which is exponential at worst.
const checkTimeout = 5 * time.Minute

// showTimeout bounds the search for a shorter history of a violation, and that for its picture.
const showTimeout = time.Second

// A Violation is what no lock may do.
type Violation struct {
	Job     string
	What    []string // of the invariants; none if it is only the model that is violated
	History []Op     // the shortest found that the model refuses; nil if it is only an invariant
	Prefix  int      // how many of the job's calls had returned when the model was violated
	Of      int      // the calls of the job
	// how many operations of all jobs had returned then; of the whole history if it is only an
	// invariant
	After int

	at int64 // when
}

// A Verdict is the result of Check.
type Verdict struct {
	Operations int
	Unknown    int // of these, whose outcome nobody knows
	Kinds      map[string]int
	Undecided  []string // jobs for which the search took too long
	Violations []Violation
}

// Check decides whether a table of locks can have given the answers of the history.
func Check(history []Op, written []Written) Verdict {
	v := Verdict{Kinds: map[string]int{}}
	jobs, writes := map[string][]Op{}, map[string][]Written{}
	committed := map[int64]bool{}
	for _, w := range written {
		writes[w.Job] = append(writes[w.Job], w)
		committed[w.Op] = true
	}
	for _, o := range history {
		jobs[o.Job] = append(jobs[o.Job], o)
		if !o.counts() {
			continue
		}
		v.Operations++
		v.Kinds[o.name()+" "+string(o.Result)]++
		if o.Result == Unknown {
			v.Unknown++
		}
	}
	for job, ops := range jobs {
		found := Violation{Job: job, What: invariants(ops, writes[job]), Of: len(ops)}
		lin := linear(ops, committed)
		switch result := decide(lin); {
		case result == porcupine.Illegal:
			found.History, found.Prefix, found.at = shortest(lin)
		case result == porcupine.Unknown:
			v.Undecided = append(v.Undecided, job)
		}
		if found.What != nil || found.History != nil {
			found.After = v.Operations
			if found.History != nil {
				found.After = returned(history, found.at)
			}
			v.Violations = append(v.Violations, found)
		}
	}
	return v
}

// counts reports whether o is an operation of its own, not an attempt or a note beside one.
func (o Op) counts() bool {
	return o.Parent == 0 && o.Kind != Trust && o.Kind != Renewed && o.Kind != Ended
}

// looks reports whether o changes nothing.
func (o Op) looks() bool {
	switch o.Kind {
	case Status, Write, Renewed, held, gone:
		return true
	}
	return o.Result == Refused || o.Result == JobDisabled || o.Result == AlreadyRun ||
		o.Result == Nothing
}

func returned(history []Op, at int64) (n int) {
	for _, o := range history {
		if o.counts() && o.Return <= at {
			n++
		}
	}
	return n
}

// linear is the part of a history that the model judges. It omits an acquisition with an unknown
// outcome that explains nothing else: it may as well never have taken effect, and each one makes
// the search longer.
func linear(ops []Op, committed map[int64]bool) []Op {
	type identity struct {
		taken, needed bool
		unlocked      bool           // perhaps, where something of it is unknown
		times         map[int64]bool // the lock_times that are known to be its own
	}
	ids := map[string]*identity{}
	of := func(owner string) *identity {
		if ids[owner] == nil {
			ids[owner] = &identity{times: map[int64]bool{}}
		}
		return ids[owner]
	}
	// Whether an answer may tell of a lock that was free and name nobody.
	free := slices.ContainsFunc(ops, func(o Op) bool {
		return o.Holder == "" && (o.Result == Lost ||
			o.Result == OK && (o.Kind == Unlock || o.Kind == Force))
	})
	for _, o := range ops {
		switch id := of(o.Owner); o.Kind {
		case Lock, Acquire:
			if o.Result == OK {
				id.taken = true
				// One that found the lock held needs the call that acquired it.
				id.needed = id.needed || o.Token < o.Since
				id.times[o.Token] = true
			}
		case Renew:
			if o.Result == OK {
				id.times[o.Token] = true
			}
		case Unlock, Release:
			id.unlocked = id.unlocked || o.Result == OK
			// It may have freed a lock that nobody saw acquired, and others may have seen it
			// free.
			id.needed = id.needed || o.Result == Unknown && free
		case Force:
			id.needed = true // somebody has seen it
		}
	}
	for _, o := range ops {
		if o.Holder != "" && o.Result != Unknown && !of(o.Holder).times[o.LockTime] {
			of(o.Holder).needed = true
		}
	}
	var kept []Op
	for _, o := range ops {
		switch o.Kind {
		case Trust, Ended:
			continue
		case Renewed, Status:
			if o.Result != OK {
				continue
			}
		case Release:
			if o.Result == OK && o.Doubt {
				free := o // by one of its attempts
				free.Result, free.Return, free.Before = Unknown, forever, forever
				o.Kind = gone
				kept = append(kept, free, o)
				o.Kind = held
			}
		case Write:
			// The table has the result.
			if o.Result != OK && !(o.Result == Unknown && committed[o.ID]) {
				continue
			}
			o.Result = OK
		case Lock, Acquire:
			if id := of(o.Owner); o.Result == Unknown && !id.needed && (id.taken || !id.unlocked) {
				continue
			}
		}
		kept = append(kept, o)
	}
	return kept
}

// operations adds the end of the history, see the model.
func operations(ops []Op) []porcupine.Operation {
	var last int64
	all := make([]porcupine.Operation, 0, len(ops)+1)
	for _, o := range ops {
		if o.Return != forever {
			last = max(last, o.Return)
		}
		last = max(last, o.Call)
		all = append(all, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call,
			Return: o.Return})
	}
	return append(all, porcupine.Operation{Input: Op{Kind: end, Result: OK}, Call: last + 1,
		Return: last + 2})
}

func decide(ops []Op) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model, operations(ops), checkTimeout)
}

// illegal reports whether the model refuses a history. It gives up at the time by, and what is
// printed is longer then.
func illegal(ops []Op, by time.Time) bool {
	left := time.Until(by)
	return left > 0 &&
		porcupine.CheckOperationsTimeout(model, operations(ops), left) == porcupine.Illegal
}

// shortest returns a short part of a history that the model refuses for the same reason: it ends
// as soon as it can, begins with the last acquisition that suffices, and omits answers that don't
// matter. prefix is the number of calls that had returned at its end, and at is that time.
func shortest(ops []Op) (short []Op, prefix int, at int64) {
	by := time.Now().Add(showTimeout)
	// Of a history that a lock can have, every beginning is one too.
	var returns []int64
	for _, o := range ops {
		if o.Return != forever {
			returns = append(returns, o.Return)
		}
	}
	slices.Sort(returns)
	n, _ := slices.BinarySearchFunc(returns, true, func(at int64, _ bool) int {
		if illegal(until(ops, at), by) {
			return 0
		}
		return -1
	})
	if n == len(returns) {
		return ops, n, forever
	}
	short, prefix = until(ops, returns[n]), n+1
	// What precedes an acquisition doesn't matter if nobody else was at work. The first operation
	// of the rest creates the row.
	for i := len(short) - 1; i > 0; i-- {
		o := short[i]
		if o.Kind != Lock && o.Kind != Acquire || o.Result != OK || o.Token < o.Since ||
			slices.ContainsFunc(short, func(p Op) bool {
				return p.ID != o.ID && p.Call <= o.Return && p.Return >= o.Call
			}) {
			continue
		}
		if rest := short[i:]; illegal(rest, by) {
			short = rest
			break
		}
	}
	for i := len(short) - 1; i >= 0; i-- {
		o := short[i]
		if o.looks() {
			if rest := slices.Delete(slices.Clone(short), i, i+1); illegal(rest, by) {
				short = rest
			}
		}
	}
	return withoutOthers(short, by), prefix, returns[n]
}

// withoutOthers leaves out the runs that have nothing to do with it, each with all that concerns
// it, and Enable and Disable, as if they had never been. What is left must still be refused, for
// its last answer and not before that.
func withoutOthers(ops []Op, by time.Time) []Op {
	var last Op
	var before int64 // when the answer before the last one was there
	for _, o := range ops {
		switch {
		case o.Return == forever:
		case o.Return > last.Return:
			before, last = last.Return, o
		default:
			before = max(before, o.Return)
		}
	}
	if last.Result == Nothing || last.Result == Lost || last.Result == JobDisabled ||
		last.Kind == Status {
		return ops // these may be refused because of what is missing
	}
	tried := map[string]bool{last.Owner: true}
	for _, of := range ops {
		owner := of.Owner // "" of Enable and Disable
		if tried[owner] || owner != "" && slices.ContainsFunc(ops,
			func(o Op) bool { return o.Owner != owner && o.Holder == owner }) {
			continue
		}
		tried[owner] = true
		rest := slices.DeleteFunc(slices.Clone(ops), func(o Op) bool {
			return o.Owner == owner &&
				o.Kind != Status
		})
		if illegal(rest, by) && !illegal(until(rest, before), by) {
			ops = rest
		}
	}
	return ops
}

// until returns the history as it was at a time: what had not returned is unknown, and reads that
// had not returned are omitted.
func until(ops []Op, at int64) (kept []Op) {
	for _, o := range ops {
		switch {
		case o.Call > at:
			continue
		case o.Return > at && o.Result != Unknown:
			if o.Result != OK || o.looks() {
				continue
			}
			o.Result, o.Return, o.Before = Unknown, forever, forever
		}
		kept = append(kept, o)
	}
	return kept
}

// Print writes the violation as text, and porcupine's picture of it to a file in dir.
func (v Violation) Print(w io.Writer, dir string) {
	fmt.Fprintf(w, "VIOLATION: job %s, a history of %d calls\n", v.Job, v.Of)
	for _, what := range v.What[:min(len(v.What), 10)] {
		fmt.Fprintln(w, what)
	}
	if v.History == nil {
		return
	}
	fmt.Fprintf(w,
		"After %d calls no order of them explains the answers. The shortest part found that shows it:\n",
		v.Prefix)
	first := v.History[0].Call
	for _, o := range v.History {
		until := "never"
		if o.Return != forever {
			until = fmt.Sprintf("%.3f ms", float64(o.Return-first)/1e6)
		}
		fmt.Fprintf(w, "\t%10.3f ms to %-12s client %-4d %v\n", float64(o.Call-first)/1e6, until,
			o.Client, o)
	}
	path := filepath.Join(dir, "violation-"+strings.NewReplacer("/", "-", " ",
		"-").Replace(v.Job)+".html")
	_, info := porcupine.CheckOperationsVerbose(model, drawn(v.History), showTimeout)
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		fmt.Fprintln(w, "no picture:", err)
		return
	}
	fmt.Fprintln(w, "A picture of it:", path)
}

// drawn returns a history for the picture. The picture has a line for every client number up to
// the largest, so they are counted from 0; times are from the first call; the details are beside
// the text of a box.
func drawn(ops []Op) []porcupine.Operation {
	lines := map[int]int{}
	all := operations(ops)
	first := ops[0].Call
	for i := range all {
		o := &all[i]
		op := o.Input.(Op)
		client := fmt.Sprintf("client %d: %v", op.Client, op)
		if op.Kind == end {
			op.Client, client = -1, "the end of the history" // a line of its own
		}
		if _, ok := lines[op.Client]; !ok {
			lines[op.Client] = len(lines)
		}
		o.ClientId, o.Metadata = lines[op.Client], client
		o.Call -= first
		if o.Return != forever {
			o.Return -= first
		}
	}
	return all
}

// Add adds a verdict.
func (v *Verdict) Add(other Verdict) {
	v.Operations += other.Operations
	v.Unknown += other.Unknown
	v.Undecided = append(v.Undecided, other.Undecided...)
	v.Violations = append(v.Violations, other.Violations...)
	if v.Kinds == nil {
		v.Kinds = map[string]int{}
	}
	for k, n := range other.Kinds {
		v.Kinds[k] += n
	}
}

// Print writes the counts.
func (v Verdict) Print(w io.Writer) {
	fmt.Fprintf(w, "operations: %d, with an unknown outcome: %d\n", v.Operations, v.Unknown)
	var kinds []string
	for k := range v.Kinds {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(cmp.Compare(v.Kinds[b], v.Kinds[a]),
			cmp.Compare(a, b))
	})
	for _, k := range kinds {
		fmt.Fprintf(w, "\t%8d %s\n", v.Kinds[k], k)
	}
	fmt.Fprintf(w, "violations: %d, histories undecided: %d\n", len(v.Violations), len(v.Undecided))
}
