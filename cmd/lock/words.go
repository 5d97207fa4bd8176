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

// colored reports whether f is a terminal whose user allows colours.
func colored(f *os.File) bool {
	return columns(f) > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// columns returns the width of a terminal, 0 if f is none.
func columns(f *os.File) int {
	columns, _ := size(f)
	return columns
}

// size returns the size of a terminal, 0 if f is none.
func size(f *os.File) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return cmp.Or(int(size.Col), 80), cmp.Or(int(size.Row), 24) // 0: it doesn't know
}

// visible makes a name safe to print on a terminal.
func visible(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := fmt.Sprintf("%q", s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// cells returns the number of columns of a text on a terminal.
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

// cut shortens a text to most columns.
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

// ageWords formats an age. A negative one is in the future: a wrong clock, or a hand, wrote the
// time.
func ageWords(d time.Duration) string {
	switch {
	case d <= -time.Second:
		return "in " + spanWords(-max(d, -math.MaxInt64))
	default:
		return spanWords(max(d, 0))
	}
}

// agoWords is ageWords for a sentence.
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
