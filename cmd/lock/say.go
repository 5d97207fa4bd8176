//go:build unix && !aix && !solaris

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// A speaker writes the messages, a line each, to standard error. What it has to hide never appears in them.
type speaker struct {
	w       io.Writer
	color   bool
	json    *slog.Logger // nil: text
	verbose bool

	file string // the database, if it is a file

	mu      sync.Mutex
	secrets []string
}

func (s *speaker) configure(format string, verbose bool) error {
	s.verbose = verbose
	switch format {
	case "text":
	case "json":
		s.json = slog.New(slog.NewJSONHandler(s.w, nil))
	default:
		return usagef("--log %q: it is text or json", format)
	}
	return nil
}

// about adds to all messages in JSON what they are about.
func (s *speaker) about(attrs ...any) {
	if s.json != nil {
		s.json = s.json.With(attrs...)
	}
}

func (s *speaker) hide(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, secrets...)
}

func (s *speaker) info(msg string, attrs ...slog.Attr) {
	if s.verbose {
		s.say(slog.LevelInfo, msg, attrs...)
	}
}

func (s *speaker) warn(msg string, attrs ...slog.Attr) { s.say(slog.LevelWarn, msg, attrs...) }

func (s *speaker) say(level slog.Level, msg string, attrs ...slog.Attr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	msg = s.clean(msg)
	if s.json != nil {
		for i, a := range attrs {
			if a.Value.Kind() == slog.KindString {
				attrs[i] = slog.String(a.Key, s.clean(a.Value.String()))
			}
		}
		s.json.LogAttrs(context.Background(), level, msg, attrs...)
		return
	}
	name := "lock:"
	if s.color && level > slog.LevelInfo {
		name = red + name + plain
	}
	fmt.Fprintln(s.w, name, msg)
}

// What a password may be in that nobody has told us of: the address of a database that was put in the wrong place.
var (
	login    = regexp.MustCompile(`://\S*@`)
	password = regexp.MustCompile(`(?i)(password\s*=\s*)('[^']*'|[^\s&]+)`)
)

// clean makes one line of a message and takes the secrets out.
func (s *speaker) clean(msg string) string {
	msg = login.ReplaceAllString(msg, "://xxxxx@")
	msg = password.ReplaceAllString(msg, "${1}xxxxx")
	for _, secret := range s.secrets {
		if secret != "" {
			msg = strings.ReplaceAll(msg, secret, "xxxxx")
		}
	}
	return visible(strings.Join(strings.Fields(msg), " "))
}

// exit says what is to be said of the error that a command ended with, and returns the exit status.
func (s *speaker) exit(err error, command string) int {
	var f *failure
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &f):
		// It comes from the parsing of the command line.
		f = &failure{exitUsage, fmt.Errorf("%w (%s --help explains)", err, command)}
	}
	if f.err != nil {
		s.say(slog.LevelError, s.words(f), slog.Int("exit", f.code))
	}
	return f.code
}

// words are what is said of a failure.
func (s *speaker) words(f *failure) string {
	words := f.err.Error()
	if f.code == exitDatabase {
		words = strings.TrimPrefix(strings.TrimPrefix(words, "lock: "), "List: ")
		if s.file != "" { // the error doesn't name it, as that of a server does
			words = s.file + ": " + words
		}
		words = "the database: " + words
	}
	return words
}

const (
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// colored says whether f takes colours: it is a terminal, and the user has nothing against them.
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

// ageWords is a duration for a reader who wants to know how long ago.
func ageWords(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
