//go:build unix && !aix && !solaris

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// tableWidth is the width of a table.
const tableWidth = 100

// An entry is a lock as it is shown.
type entry struct {
	Component string  `json:"component"`
	Job       string  `json:"job"`
	Held      bool    `json:"held"`
	Enabled   bool    `json:"enabled"`
	Holder    *holder `json:"holder,omitempty"` // nil: nobody
	Last      *holder `json:"last,omitempty"`   // of a lock that is free; nil: nobody ever
}

type holder struct {
	ComponentID string     `json:"component_id"`
	JobID       string     `json:"job_id"`
	Started     *time.Time `json:"started,omitempty"` // when the run was asked for, or its tick
	LockTime    time.Time  `json:"lock_time"`         // when the lock was acquired or last renewed
	AgeSeconds  float64    `json:"age_seconds"`       // negative if that is in the future
}

func (h *holder) age() time.Duration { return time.Duration(h.AgeSeconds * float64(time.Second)) }

// tick reports whether the run is a tick: its ID is nothing but a time.
func (h *holder) tick() bool {
	return h.Started != nil && h.JobID == h.Started.Format("2006-01-02T15:04:05Z")
}

// run describes the run: when it was asked for, or its tick; or its ID if that begins with no
// time.
func (h *holder) run() string {
	if h.Started == nil {
		return visible(h.JobID)
	}
	return timeWords(*h.Started)
}

func entryOf(s lock.Status) entry {
	e := entry{Component: s.ComponentName, Job: s.JobName, Held: s.Locked, Enabled: s.Enabled}
	h := &holder{ComponentID: s.Holder.ComponentID, JobID: s.Holder.JobID,
		LockTime: s.Holder.LockTime, AgeSeconds: s.Holder.Age.Seconds()}
	if started := s.Holder.Started(); !started.IsZero() {
		h.Started = &started
	}
	switch {
	case s.Locked:
		e.Holder = h
	case h.ComponentID != "" || h.JobID != "":
		e.Last = h
	}
	return e
}

func (e entry) who() *holder {
	if e.Holder != nil {
		return e.Holder
	}
	return e.Last
}

// same reports whether two entries differ only by renewals.
func (e entry) same(other entry) bool {
	a, b := e.who(), other.who()
	return e.Component == other.Component && e.Job == other.Job && e.Held == other.Held &&
		e.Enabled == other.Enabled && (a == nil) == (b == nil) &&
		(a == nil || a.ComponentID == b.ComponentID && a.JobID == b.JobID)
}

func (e entry) state() (words, color string) {
	switch {
	case e.Held && !e.Enabled:
		return "held, disabled", yellow
	case e.Held:
		return "held", green
	case !e.Enabled:
		return "disabled", yellow
	default:
		return "free", ""
	}
}

func jsonLine(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // JSON can hold all of it
	}
	return string(text) + "\n"
}

// table shows locks in columns. If they exceed the limit, the longest names are cut.
func table(all []entry, limit int, color bool) string {
	rows := [][]string{{"COMPONENT", "JOB", "STATE", "HOLDER (LAST)", "RUN", "AGE"}}
	for _, e := range all {
		state, _ := e.state()
		row := []string{visible(e.Component), visible(e.Job), state, "-", "-", "-"}
		if h := e.who(); h != nil {
			row[3], row[4], row[5] = visible(h.ComponentID), h.run(), ageWords(h.age())
			if !e.Held {
				row[3] = "(" + row[3] + ")"
			}
		}
		rows = append(rows, row)
	}
	widths := fit(rows, limit)
	var b bytes.Buffer
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = cut(cell, widths[i])
			padding := strings.Repeat(" ", widths[i]-cells(cell)+2)
			if i == 2 && n > 0 && color {
				if _, c := all[n-1].state(); c != "" {
					cell = c + cell + plain
				}
			}
			line.WriteString(cell + padding)
		}
		text := strings.TrimRight(line.String(), " ")
		if n == 0 && color {
			text = bold + text + plain
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// fit returns the widths of the columns.
func fit(rows [][]string, limit int) []int {
	widths := make([]int, len(rows[0]))
	total := 2 * (len(widths) - 1)
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], cells(row[i]))
		}
		total += widths[i]
	}
	for ; total > limit; total-- {
		longest := 0
		for _, i := range []int{1, 3} { // STATE, RUN and AGE stay whole
			if widths[i] > widths[longest] {
				longest = i
			}
		}
		if widths[longest] <= 8 && widths[4] > len("2006-01-02 15:04:05Z") {
			longest = 4 // it is a name, not a time
		}
		if widths[longest] <= 4 {
			break
		}
		widths[longest]--
	}
	return widths
}
