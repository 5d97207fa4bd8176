// Package locknotify wakes waiters when a lock is released, by LISTEN and NOTIFY of PostgreSQL.
// Each process has one connection for it, whatever the number of waiters and locks, and whatever
// driver the service uses.
//
//	notifier, err := locknotify.New(dsn, locknotify.Options{})
//	if err != nil {
//		return err
//	}
//	defer notifier.Close()
//	l, err := lock.NewWith(db, lock.Options{Notifier: notifier})
//
// # Who is heard
//
// Each Lock with a Notifier announces its own releases. Releases by anybody else, such as the
// command lock, a statement by hand or the 2018 package, are announced if the table has the
// trigger of [Trigger]. With the trigger, set [Options.ListenOnly] everywhere: the database
// announces each release.
//
// # For other listeners
//
// The channel is lock_released, unless [Options.Channel] names another. The payload is a JSON
// object with the strings component and job. An empty payload means any lock: the names were too
// long for a payload.
package locknotify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// DefaultChannel is the channel of Options without one.
const DefaultChannel = "lock_released"

// maxPayload is the length at which PostgreSQL refuses a payload.
const maxPayload = 8000

// Options are the options of [New]. Their zero value is a good default.
type Options struct {
	// Channel is the channel to notify and to listen to; "" means lock_released. Use two channels
	// for the locks of two tables, or waiters look more often than necessary.
	Channel string
	// ListenOnly makes Publish do nothing, for a table with the trigger of [Trigger].
	ListenOnly bool
	// Logger, unless nil, logs lost connections as warnings, and new ones.
	Logger *slog.Logger
}

// Notifier is a lock.Notifier. It is safe for concurrent use.
type Notifier struct {
	config  *pgx.ConnConfig
	o       Options
	cancel  context.CancelFunc
	stopped chan struct{}

	mu        sync.Mutex
	woken     map[*subscription]struct{}
	pending   []string           // payloads to publish
	interrupt context.CancelFunc // ends the wait for a notification
}

type name struct {
	Component string `json:"component"`
	Job       string `json:"job"`
}

// A subscription is for one lock, or for all.
type subscription struct {
	name
	all   bool
	woken func()
}

// New returns a Notifier with its own connection to dsn, a URL or key-value string as for pgx.
// The DSN must lead to the server, or to a pooler that keeps sessions: behind pgbouncer in
// transaction mode nothing is heard. New connects in the background, and again after each loss.
// The error says what is wrong with dsn.
func New(dsn string, o Options) (*Notifier, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("locknotify: %w", err)
	}
	if o.Channel == "" {
		o.Channel = DefaultChannel
	}
	if len(o.Channel) > 63 || strings.IndexByte(o.Channel, 0) >= 0 {
		return nil, fmt.Errorf("locknotify: the channel %q is longer than 63 bytes or has a NUL",
			o.Channel)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Notifier{config: config, o: o, cancel: cancel, stopped: make(chan struct{}),
		woken: map[*subscription]struct{}{}}
	go n.run(ctx)
	return n, nil
}

// Close ends the connection. Waiters go on polling.
func (n *Notifier) Close() {
	n.cancel()
	<-n.stopped
}

// Publish implements lock.Notifier. It doesn't wait for the database.
func (n *Notifier) Publish(_ context.Context, componentName, jobName string) error {
	if n.o.ListenOnly {
		return nil
	}
	payload, err := json.Marshal(name{componentName, jobName})
	if err != nil || len(payload) >= maxPayload {
		payload = nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, string(payload))
	if n.interrupt != nil {
		n.interrupt()
	}
	return nil
}

// Subscribe implements lock.Notifier.
func (n *Notifier) Subscribe(componentName, jobName string, woken func()) (stop func()) {
	return n.subscribe(&subscription{name: name{componentName, jobName}, woken: woken})
}

// SubscribeAll is Subscribe for all locks: woken is called each time any lock may be free. The
// page of package lockhttp takes it.
func (n *Notifier) SubscribeAll(woken func()) (stop func()) {
	return n.subscribe(&subscription{all: true, woken: woken})
}

func (n *Notifier) subscribe(s *subscription) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.woken[s] = struct{}{}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.woken, s)
	}
}

// heard wakes the waiters that a payload names: all, if it can't be parsed.
func (n *Notifier) heard(payload string) {
	var about name
	all := json.Unmarshal([]byte(payload), &about) != nil
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.woken {
		if all || s.all || s.name == about {
			s.woken()
		}
	}
}

// run keeps a connection until ctx ends.
func (n *Notifier) run(ctx context.Context) {
	defer close(n.stopped)
	for backoff := time.Duration(0); ctx.Err() == nil; {
		listening := time.Now()
		err := n.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if backoff = min(max(2*backoff, 100*time.Millisecond),
			10*time.Second); time.Since(listening) > backoff {
			backoff = 100 * time.Millisecond
		}
		n.log(slog.LevelWarn, "lock: the notifier has no connection", slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
	}
}

func (n *Notifier) log(level slog.Level, message string, attrs ...slog.Attr) {
	if n.o.Logger != nil {
		n.o.Logger.LogAttrs(context.Background(), level, message, attrs...)
	}
}

// listen connects, listens and publishes until the connection is lost.
func (n *Notifier) listen(ctx context.Context) error {
	connecting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, n.config.Copy())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(connecting))
	if _, err := conn.Exec(connecting, "LISTEN "+pgx.Identifier{n.o.Channel}.Sanitize()); err != nil {
		return err
	}
	n.log(slog.LevelInfo, "lock: the notifier listens", slog.String("channel", n.o.Channel))
	n.heard("") // what was released meanwhile was not heard
	for {
		payload, err := n.wait(ctx, conn)
		switch {
		case err == nil:
			n.heard(payload)
			continue
		case ctx.Err() != nil || !errors.Is(err, context.Canceled) &&
			!errors.Is(err, context.DeadlineExceeded):
			return err
		}
		if err := n.publish(ctx, conn); err != nil {
			return err
		}
	}
}

// wait waits for a notification. It returns an error of its context if there is something to
// publish, and from time to time, so that the connection is used.
func (n *Notifier) wait(ctx context.Context, conn *pgx.Conn) (payload string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	n.mu.Lock()
	n.interrupt = cancel
	ready := len(n.pending) > 0
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.interrupt = nil
		n.mu.Unlock()
	}()
	if ready {
		return "", context.Canceled
	}
	notification, err := conn.WaitForNotification(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", err
	}
	return notification.Payload, nil
}

// publish sends what is pending, in one round trip. If nothing is, it checks the connection.
func (n *Notifier) publish(ctx context.Context, conn *pgx.Conn) error {
	n.mu.Lock()
	payloads := n.pending
	n.pending = nil
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := conn.Exec(ctx, "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload",
		n.o.Channel, payloads)
	return err
}
