package lockhttp

import "time"

// Change is something that has happened to a lock.
type Change struct {
	Component string `json:"component"`
	Job       string `json:"job"`
	// What is "enabled", "disabled", "deleted", "released" (by force), "taken_over" (by this
	// process: the lock of From had expired), or "changed_hands": two looks at the table, After
	// and At, have found From and To. From may have released the lock, or lost it, and others may
	// have had it in between.
	What  string     `json:"what"`
	By    string     `json:"by,omitempty"` // who did it with the page, as Options.User names them
	At    time.Time  `json:"at"`           // by the clock of this process
	After *time.Time `json:"after,omitempty"`
	From  *Run       `json:"from,omitempty"`
	To    *Run       `json:"to,omitempty"`
}

const changedHands = "changed_hands"

// Run is who held a lock.
type Run struct {
	ComponentID string `json:"component_id"`
	JobID       string `json:"job_id"`
}

func (c Change) sameHandover(d Change) bool {
	return c.Component == d.Component && c.Job == d.Job && c.From != nil && d.From != nil &&
		c.To != nil && d.To != nil && *c.From == *d.From && *c.To == *d.To
}

// compare finds what has changed hands between what was known and a later look.
func compare(known view, now []Lock, at time.Time) []Change {
	before, after := map[name]Run{}, known.at.UTC()
	for _, l := range known.locks {
		if l.Holder != nil {
			before[name{l.Component, l.Job}] = l.Holder.run()
		}
	}
	var all []Change
	for _, l := range now {
		from, ok := before[name{l.Component, l.Job}]
		if !ok || l.Holder == nil || from == l.Holder.run() {
			continue
		}
		to := l.Holder.run()
		all = append(all, Change{Component: l.Component, Job: l.Job, What: changedHands, At: at.UTC(),
			After: &after, From: &from, To: &to})
	}
	return all
}

func (h Holder) run() Run { return Run{h.ComponentID, h.JobID} }
