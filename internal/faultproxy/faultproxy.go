// Package faultproxy is a proxy between a client and a PostgreSQL server that cuts their
// connection at a given message.
package faultproxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// A Fault cuts the connection once. Messages are counted from [Proxy.Arm]; those that open or end
// a connection don't count.
type Fault struct {
	Place Place
	N     int // which message, from 0, where Place is of one
	Then  Then
}

// Place is where a Fault cuts.
type Place int

// The places differ in what the server gets and what the client hears.
const (
	BeforeRequest Place = iota // request N does not reach the server
	BeforeReply                // the server sends reply N, which does not reach the client
	AmidReply                  // half of reply N reaches the client
	// the server has carried out a statement with parameters, and nothing of that reaches the client
	ReplyLost
	// the client is told that such a statement is complete, but the server is never told to commit
	// it
	NotCommitted
)

// Then is how a Proxy treats new connections after a Fault.
type Then int

// From the best to the worst.
const (
	Recover Then = iota // accepts them
	Refuse              // resets them, until Heal
	Vanish              // stops listening, for good
)

func (t Then) String() string { return [...]string{"recovering", "refusing", "gone"}[t] }

func (f Fault) String() string {
	place := [...]string{"before request %d", "before reply %d", "amid reply %d", "reply lost",
		"not committed"}[f.Place]
	if f.Place < ReplyLost {
		place = fmt.Sprintf(place, f.N)
	}
	return fmt.Sprintf("%s, then %v", place, f.Then)
}

// Proxy is a proxy in front of one server. It is safe for concurrent use.
type Proxy struct {
	server   string
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex
	refusing bool
	armed    *Fault
	requests int
	replies  int
	links    map[*link]struct{}
}

// A link is a connection of a client and the proxy's connection to the server for it.
type link struct {
	client, server net.Conn
	open           bool // past the start-up of the connection
	executing      bool // a statement with parameters was sent, without its Sync
	executed       bool // with its Sync
}

// Start returns a Proxy for the server at the address, which accepts connections until Close.
func Start(server string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{server: server, listener: listener, links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is the address that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Arm arms f for the client's next exchange with the server.
func (p *Proxy) Arm(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.requests, p.replies = &f, 0, 0
}

// Disarm disarms the Fault and reports whether it has happened.
func (p *Proxy) Disarm() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	happened := p.armed == nil
	p.armed = nil
	return happened
}

// Refuse cuts all connections and resets new ones until Heal.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = true
	p.cutAll()
}

// Heal ends Refuse.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = false
}

// Close cuts all connections and returns when the Proxy has ended.
func (p *Proxy) Close() {
	p.listener.Close()
	p.Refuse()
	p.running.Wait()
}

func (p *Proxy) cutAll() {
	for l := range p.links {
		l.cut()
	}
}

func (l *link) cut() {
	l.client.Close()
	l.server.Close()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// begin registers l as a connection that can be cut, unless none are accepted.
func (p *Proxy) begin(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusing {
		l.client.(*net.TCPConn).SetLinger(0) // Close resets it
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) end(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	l := &link{client: client, server: server}
	defer l.cut()
	if !p.begin(l) {
		return
	}
	defer p.end(l)
	p.running.Go(func() {
		defer l.cut()
		p.relay(server, client, func(m message) (message, bool) { return p.reply(l, m) })
	})
	// The first message of a client has a length and no type.
	if startup, err := readMessage(client, 0); err != nil || write(server, startup) != nil {
		return
	}
	p.relay(client, server, func(m message) (message, bool) { return p.request(l, m) })
}

// relay passes on what decide returns for each message, until that is the last one.
func (p *Proxy) relay(from, to net.Conn, decide func(message) (message, bool)) {
	for {
		m, err := readMessage(from, 1)
		if err != nil {
			return
		}
		m, last := decide(m)
		if write(to, m) != nil || last {
			return
		}
	}
}

// The types of messages that are used here.
const (
	execute         = 'E'
	flush           = 'H'
	syncMessage     = 'S'
	terminate       = 'X'
	commandComplete = 'C'
	readyForQuery   = 'Z'
)

func (p *Proxy) request(l *link, m message) (pass message, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed == nil || m[0] == terminate {
		return m, false
	}
	n := p.requests
	p.requests++
	if p.armed.Place == BeforeRequest && n == p.armed.N {
		return nil, p.strike(l)
	}
	switch m[0] {
	case execute:
		l.executing = true
	case syncMessage:
		if l.executing && p.armed.Place == NotCommitted {
			m = message{flush, 0, 0, 0, 4} // asks only for the replies, where Sync would also commit
		}
		l.executed = l.executing
	}
	return m, false
}

func (p *Proxy) reply(l *link, m message) (pass message, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.open {
		l.open = m[0] == readyForQuery
		return m, false
	}
	if p.armed == nil {
		return m, false
	}
	n := p.replies
	p.replies++
	switch {
	case p.armed.Place == BeforeReply && n == p.armed.N, p.armed.Place == ReplyLost && l.executed:
		return nil, p.strike(l)
	case p.armed.Place == AmidReply && n == p.armed.N:
		return m[:len(m)/2], p.strike(l)
	case p.armed.Place == NotCommitted && l.executed && m[0] == commandComplete:
		return m, p.strike(l)
	}
	return m, false
}

// strike executes the Fault. The rest of l is cut when its last message has passed.
func (p *Proxy) strike(l *link) (last bool) {
	then := p.armed.Then
	p.armed = nil
	p.refusing = then == Refuse
	if then == Vanish {
		p.listener.Close()
	}
	if then != Recover {
		for other := range p.links {
			if other != l {
				other.cut()
			}
		}
	}
	return true
}

// A message is a message of PostgreSQL's protocol, with its type and its length.
type message []byte

func readMessage(r io.Reader, typeBytes int) (message, error) {
	head := make(message, typeBytes+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(head[typeBytes:]))
	if length < 4 {
		return nil, fmt.Errorf("a message of length %d", length)
	}
	m := append(head, make(message, length-4)...)
	_, err := io.ReadFull(r, m[len(head):])
	return m, err
}

func write(w io.Writer, m message) error {
	if len(m) == 0 {
		return nil
	}
	_, err := w.Write(m)
	return err
}
