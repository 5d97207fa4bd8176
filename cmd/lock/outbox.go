//go:build unix && !aix && !solaris

package main

import (
	"bytes"
	"io"
	"time"
)

// flushTimeout limits the wait for the last messages, when the command has ended and its lock is
// released.
const flushTimeout = time.Second

// An outbox writes lines in the background. Its writer never waits: if nobody reads (a stalled
// pager, Ctrl-S, a full pipe), a message must not delay the end of a command. If too many lines
// wait, later ones are dropped.
type outbox struct {
	lines chan []byte // nil is a mark of flush
	done  chan struct{}
}

func newOutbox(w io.Writer) *outbox {
	o := &outbox{make(chan []byte, 1000), make(chan struct{}, 1)}
	go func() {
		neverStopped()
		for line := range o.lines {
			if line == nil {
				o.done <- struct{}{}
				continue
			}
			w.Write(line) // an error can't be reported
		}
	}()
	return o
}

// Write never fails.
func (o *outbox) Write(p []byte) (int, error) {
	select {
	case o.lines <- bytes.Clone(p):
	default:
	}
	return len(p), nil
}

// flush waits until everything has been written, or for most.
func (o *outbox) flush(most time.Duration) {
	late := time.After(most)
	select {
	case o.lines <- nil:
	case <-late:
		return
	}
	select {
	case <-o.done:
	case <-late:
	}
}
