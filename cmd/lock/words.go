//go:build unix && !aix && !solaris

package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
	"golang.org/x/text/width"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// colored reports whether f takes colours: it is a terminal, and the user has nothing against
// them.
func colored(f *os.File) bool {
	return columns(f) > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// columns is the width of a terminal, 0 if f is none.
func columns(f *os.File) int {
	columns, _ := size(f)
	return columns
}

// size is that of a terminal, 0 if f is none.
func size(f *os.File) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return cmp.Or(int(size.Col), 80), cmp.Or(int(size.Row), 24) // 0: it doesn't know
}

// visible makes sure that a name does nothing to the terminal it is shown on.
func visible(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := fmt.Sprintf("%q", s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// cells is how many columns of a terminal a text takes.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n++
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			n++
		}
	}
	return n
}

// cut shortens a text to as many columns.
func cut(s string, most int) string {
	if cells(s) <= most {
		return s
	}
	runes := []rune(s)
	for len(runes) > 0 && cells(string(runes)) > most-1 {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// ageWords is a duration for a reader who wants to know how long ago. One that is negative lies
// ahead: the clock that wrote the time was wrong, or a hand.
func ageWords(d time.Duration) string {
	switch {
	case d <= -time.Second:
		return "in " + spanWords(-max(d, -math.MaxInt64))
	default:
		return spanWords(max(d, 0))
	}
}

// agoWords is ageWords within a sentence.
func agoWords(d time.Duration) string {
	if words := ageWords(d); d <= -time.Second {
		return words + ", in the future"
	}
	return ageWords(d) + " ago"
}

func spanWords(d time.Duration) string {
	const year = 365 * 24 * time.Hour
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d < 3*year:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	case d > 290*year:
		return "290y or more" // a Duration has no more
	default:
		return fmt.Sprintf("%dy", int(d/year))
	}
}

func timeWords(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func jobWords(component, job string) string { return visible(component) + "/" + visible(job) }

func holderWords(h lock.Holder) string {
	return fmt.Sprintf("%s (run %s)", visible(h.ComponentID), visible(h.JobID))
}
