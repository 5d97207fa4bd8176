//go:build unix && !aix && !solaris

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
)

// A speaker writes messages to standard error, a line each, without secrets.
type speaker struct {
	w       io.Writer
	color   bool
	json    *slog.Logger // nil: text
	verbose bool

	mu      sync.Mutex
	where   string // the database
	secrets []string
}

func (s *speaker) configure(format string, verbose bool) error {
	s.verbose = verbose
	switch format {
	case "text":
	case "json":
		s.json = slog.New(slog.NewJSONHandler(s.w, nil))
	default:
		return usagef("--log %s: it must be text or json", echo(format))
	}
	return nil
}

// about makes all messages name the database.
func (s *speaker) about(where string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.where = where
}

// with adds attributes to all messages in JSON.
func (s *speaker) with(attrs ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

func (s *speaker) fault(msg string, attrs ...slog.Attr) { s.say(slog.LevelError, msg, attrs...) }

// say writes a message. It never waits for a reader: w is an outbox.
func (s *speaker) say(level slog.Level, msg string, attrs ...slog.Attr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	msg = s.clean(msg)
	where := s.masked(s.where)
	if s.json != nil {
		if where != "" {
			attrs = append(attrs, slog.String("db", where))
		}
		s.json.LogAttrs(context.Background(), level, msg, attrs...)
		return
	}
	name := "lock:"
	if s.color && level > slog.LevelInfo {
		name = red + name + plain
	}
	if where != "" {
		msg += " [" + where + "]"
	}
	fmt.Fprintln(s.w, name, msg)
}

// Where an unknown password may be: in the address of a database in the wrong place. Its end
// can't be known.
var (
	login    = regexp.MustCompile(`://.*@`)
	password = regexp.MustCompile(`(?i)(pass\w*\s*=\s*).*`)
	quoted   = regexp.MustCompile(`".*[@=].*"|-\S*@.*|://.*`) // in what the parser says
)

// leastSecret is the least length of a password that is removed from messages. Removing a shorter
// one would garble words, and reveal it.
const leastSecret = 4

// masked makes one line of a text and removes the known secrets.
func (s *speaker) masked(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, secret := range s.secrets {
		if secret = strings.Join(strings.Fields(secret), " "); len(secret) >= leastSecret {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	return visible(text)
}

// clean makes one line of a message and removes what is or may be secret.
func (s *speaker) clean(msg string) string {
	msg = s.masked(msg)
	msg = login.ReplaceAllString(msg, "://xxxxx@")
	msg = password.ReplaceAllString(msg, "${1}xxxxx")
	return msg
}

// database is the name of the database, to be printed.
func (s *speaker) database() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.masked(s.where)
}

// exit prints the message of the error that a command ended with, and returns the exit
// status.
func (s *speaker) exit(err error, command string) int {
	var f *failure
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &f):
		// It comes from the parser of the command line, and may repeat a misplaced password.
		words := quoted.ReplaceAllString(err.Error(), "xxxxx")
		f = &failure{exitUsage, fmt.Errorf("%s (%s --help explains)", words, command)}
	}
	if f.err != nil {
		s.fault(f.words(), slog.Int("exit", f.code))
	}
	return f.code
}
