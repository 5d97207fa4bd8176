package lockhttp

import (
	"slices"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// A handover is a lock that was one holder's and is another's. Either this process has taken it over, or two looks at the table
// have differed; then nobody knows whether the first holder released it or lost it, nor who held it in between.
type handover struct {
	name
	from, to lock.Holder
	at       time.Time // of the takeover, or of the later look
	after    time.Time // of the earlier look; zero: this process has taken it over
}

func sameRun(a, b lock.Holder) bool { return a.ComponentID == b.ComponentID && a.JobID == b.JobID }

// compare finds what has changed hands between what was known and a later look.
func compare(known view, now []lock.Status, at time.Time) []handover {
	held := map[name]lock.Holder{}
	for _, s := range known.locks {
		if s.Locked {
			held[name{s.ComponentName, s.JobName}] = s.Holder
		}
	}
	var all []handover
	for _, s := range now {
		n := name{s.ComponentName, s.JobName}
		if before, ok := held[n]; ok && s.Locked && !sameRun(before, s.Holder) {
			all = append(all, handover{name: n, from: before, to: s.Holder, at: at, after: known.at})
		}
	}
	return all
}

// latest keeps a list, whose latest are first, from growing for ever.
func latest(all []handover) []handover { return all[:min(len(all), mostChanges)] }

// merge is both lists in one, the latest first. Of a takeover by this process that the looks have shown too, the table says no
// more than its own event.
func merge(taken, noticed []handover) []handover {
	all := slices.Clone(taken)
	for _, c := range noticed {
		if !slices.ContainsFunc(taken, func(t handover) bool {
			return t.name == c.name && sameRun(t.from, c.from) && sameRun(t.to, c.to)
		}) {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b handover) int { return b.at.Compare(a.at) })
	return latest(all)
}
