//go:build linux

package torture

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Network is a proxy between some clients and whichever server is the primary, or from one node
// to another. It breaks at the byte, where faultproxy breaks at the message.
type Network struct {
	listener net.Listener
	target   atomic.Value // string
	// No client can cancel a statement of another connection. With a synchronous replica that
	// matters: see docs/guarantees.md.
	noCancel atomic.Bool
	latency  atomic.Int64 // of each piece of data, in each direction
	up, down atomic.Bool  // whether what is sent to the server, and to the client, vanishes
	refuse   atomic.Bool  // whether new connections are reset
	amid     atomic.Int64 // after so many more bytes to the server all connections are cut; 0: never

	mu    sync.Mutex
	links map[net.Conn]net.Conn // the server's by the client's
}

// NewNetwork starts a Network to a server.
func NewNetwork(target string) (*Network, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &Network{listener: listener, links: map[net.Conn]net.Conn{}}
	n.target.Store(target)
	go n.accept()
	return n, nil
}

// Addr returns the address for clients.
func (n *Network) Addr() string { return n.listener.Addr().String() }

// Close ends it.
func (n *Network) Close() {
	n.listener.Close()
	n.Cut()
}

// Target sends new connections to another server and cuts the old ones.
func (n *Network) Target(addr string) {
	n.target.Store(addr)
	n.Cut()
}

// Cut resets all connections on both sides.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for client, server := range n.links {
		reset(client)
		reset(server)
	}
}

// HalfClose makes one side believe that the connections are gone, and the other that they exist.
func (n *Network) HalfClose(servers bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up.Store(true)
	n.down.Store(true)
	for client, server := range n.links {
		if servers {
			reset(server)
		} else {
			reset(client)
		}
	}
}

// Heal ends what is slow, is refused or vanishes. A connection that bytes have vanished from can't
// go on: TCP would have brought them.
func (n *Network) Heal() {
	n.latency.Store(0)
	n.refuse.Store(false)
	if n.up.Swap(false) || n.down.Swap(false) {
		n.up.Store(false)
		n.down.Store(false)
		n.Cut()
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

func (n *Network) accept() {
	for {
		client, err := n.listener.Accept()
		if err != nil {
			return
		}
		go n.serve(client)
	}
}

const cancelRequest = 80877102

func (n *Network) serve(client net.Conn) {
	defer client.Close()
	first := make([]byte, 8) // its length, and its version or that it cancels
	if _, err := io.ReadFull(client, first); err != nil {
		return
	}
	if n.noCancel.Load() && binary.BigEndian.Uint32(first[4:]) == cancelRequest {
		return
	}
	server, err := net.DialTimeout("tcp", n.target.Load().(string), time.Second)
	if err != nil {
		reset(client)
		return
	}
	defer server.Close()
	n.mu.Lock()
	n.links[client] = server
	n.mu.Unlock()
	if n.refuse.Load() { // Cut may have been before it was there to be cut
		n.Cut()
	}
	if _, err := server.Write(first); err == nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.pump(client, server, &n.down, nil)
		}()
		n.pump(server, client, &n.up, &n.amid)
		<-done
	}
	n.mu.Lock()
	delete(n.links, client)
	n.mu.Unlock()
}

// pump passes on what it reads. While bytes vanish, so does the end of a side.
func (n *Network) pump(to, from net.Conn, vanish *atomic.Bool, amid *atomic.Int64) {
	buffer := make([]byte, 16<<10)
	for {
		k, err := from.Read(buffer)
		if d := n.latency.Load(); d > 0 {
			time.Sleep(time.Duration(d))
		}
		if vanish.Load() {
			if err != nil {
				return
			}
			continue
		}
		if amid != nil && k > 0 && amid.Load() > 0 {
			if left := amid.Add(-int64(k)); left <= 0 {
				amid.Store(0)
				to.Write(buffer[:max(0, min(k, k+int(left)))])
				n.Cut()
				return
			}
		}
		if _, failed := to.Write(buffer[:k]); failed != nil || err != nil {
			// The other side is cut, too.
			to.Close()
			from.Close()
			return
		}
	}
}
