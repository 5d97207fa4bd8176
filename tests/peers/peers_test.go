package main

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPeers: each grants the lock, refuses it to another, and hands it over to one who waits, not
// before it is released.
func TestPeers(t *testing.T) {
	for _, p := range peers() {
		t.Run(p.name, func(t *testing.T) {
			s, err := p.start()
			if missing(err) {
				t.Skip(err)
			}
			require.NoError(t, err)
			t.Cleanup(s.stop)
			open := func() *instance {
				i, err := p.open(t.Context(), s)
				require.NoError(t, err)
				t.Cleanup(i.close)
				return i
			}
			holder, other := open(), open()
			require.NoError(t, holder.acquire(t.Context()))
			if other.try != nil {
				require.ErrorIs(t, other.try(t.Context()), errRefused)
			}
			var released atomic.Bool
			waited := make(chan error, 1)
			go func() {
				err := other.acquire(t.Context())
				if err == nil && !released.Load() {
					err = errors.New("the lock is granted before it is released")
				}
				waited <- err
			}()
			released.Store(true)
			require.NoError(t, holder.release(t.Context()))
			require.NoError(t, <-waited)
			require.NoError(t, other.release(t.Context()))
			if s.requests != nil {
				n, err := s.requests()
				require.NoError(t, err)
				require.Positive(t, n)
			}
		})
	}
}
