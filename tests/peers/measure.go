package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	pairs    = 1000
	refusals = 1000
	handoffs = 31
	waiters  = 100

	settle = 200 * time.Millisecond // until one who begins to wait is told of a release
	// The requests of the waiters are counted for as long as window, after as long: the first
	// looks are closer together than the later ones.
	window = 15 * time.Second
)

// A bench is a peer on a running server, with two instances.
type bench struct {
	peer
	*server
	a, b *instance
}

// measure starts the server, measures, and stops it. It returns the server's version and the
// cells of the row.
func (p peer) measure(ctx context.Context) (version string, cells []string, err error) {
	s, err := p.start()
	if err != nil {
		return "", nil, err
	}
	defer s.stop()
	b := bench{peer: p, server: s}
	for _, i := range []**instance{&b.a, &b.b} {
		if *i, err = p.open(ctx, s); err != nil {
			return "", nil, err
		}
		defer (*i).close()
	}
	for _, figure := range []func(context.Context) (string, error){
		b.pair, b.refused, b.handoff, b.waiting,
	} {
		cell, err := figure(ctx)
		if err != nil {
			return "", nil, err
		}
		cells = append(cells, cell)
	}
	return s.version, cells, nil
}

// median returns the median of n times that once returns, as a multiple of the unit.
func median(n int, unit time.Duration, once func() (time.Duration, error)) (string, error) {
	took := make([]time.Duration, n)
	for i := range took {
		var err error
		if took[i], err = once(); err != nil {
			return "", err
		}
	}
	slices.Sort(took)
	m := float64(took[n/2]) / float64(unit)
	if m >= 10 {
		return fmt.Sprintf("%.0f", m), nil
	}
	return fmt.Sprintf("%.2g", m), nil
}

func (b bench) pair(ctx context.Context) (string, error) {
	return median(pairs, time.Microsecond, func() (time.Duration, error) {
		start := time.Now()
		if err := b.a.acquire(ctx); err != nil {
			return 0, err
		}
		err := b.a.release(ctx)
		return time.Since(start), err
	})
}

func (b bench) refused(ctx context.Context) (cell string, err error) {
	if b.a.try == nil {
		return "—", nil
	}
	if err := b.a.acquire(ctx); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.a.release(ctx)) }()
	return median(refusals, time.Microsecond, func() (time.Duration, error) {
		start := time.Now()
		if err := b.b.try(ctx); !errors.Is(err, errRefused) {
			return 0, fmt.Errorf("a lock that is held is not refused: %v", err)
		}
		return time.Since(start), nil
	})
}

// handoff measures from the call that releases until a waiter has the lock. The two take turns.
func (b bench) handoff(ctx context.Context) (cell string, err error) {
	if err := b.a.acquire(ctx); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.a.release(ctx)) }()
	return median(handoffs, time.Millisecond, func() (time.Duration, error) {
		var got time.Time
		acquired := make(chan error, 1)
		go func() {
			err := b.b.acquire(ctx)
			got = time.Now()
			acquired <- err
		}()
		time.Sleep(settle + 2*b.poll + rand.N(b.poll+1)) // anywhere between two looks
		start := time.Now()
		err := errors.Join(b.a.release(ctx), <-acquired)
		b.a, b.b = b.b, b.a
		return got.Sub(start), err
	})
}

// waiting counts the requests that the server gets in a second while one holds the lock and
// others wait for it.
func (b bench) waiting(ctx context.Context) (string, error) {
	if b.requests == nil {
		return "—", nil
	}
	if err := b.a.acquire(ctx); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	ended := make(chan error, waiters)
	for range waiters {
		w, err := b.open(ctx, b.server)
		if err != nil {
			return "", err
		}
		all.Go(func() {
			defer w.close()
			ended <- w.acquire(ctx)
		})
	}
	time.Sleep(window)
	before, err := b.requests()
	if err != nil {
		return "", err
	}
	start := time.Now()
	time.Sleep(window)
	after, err := b.requests()
	if err == nil && len(ended) > 0 {
		err = fmt.Errorf("one does not wait: %v", <-ended)
	}
	return fmt.Sprintf("%.0f", (after-before)/time.Since(start).Seconds()), err
}
