// Package crdbtest starts CockroachDB nodes for tests, each in its own folder and on its own
// ports, and stops them with the test.
package crdbtest

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/lib/pq" // asks a node whether it is ready
)

// ErrMissing is the error of Start if CockroachDB is not installed.
var ErrMissing = errors.New("cockroach is not on PATH")

// Dispensable reports whether to skip a test after the error of Start: CockroachDB is not
// installed, and LOCK_TEST_COCKROACH=required is not set.
func Dispensable(err error) bool {
	return errors.Is(err, ErrMissing) && os.Getenv("LOCK_TEST_COCKROACH") != "required"
}

// A Cluster has nodes on the loopback interface that accept every user without a password.
type Cluster struct {
	Nodes []*Node
	dir   string
}

// A Node is one process. Its store stays when it is killed.
type Node struct {
	Addr  string
	dir   string
	args  []string
	pid   int
	guard *exec.Cmd
	stdin io.WriteCloser
}

// Start starts a cluster of that many nodes and returns when all accept connections.
func Start(nodes int) (c *Cluster, err error) {
	return StartVia(nodes, func(_, _ int, addr string) (string, error) { return addr, nil })
}

// nowhere is what a node advertises beside the addresses for each of the others: gossip would go
// past these.
const nowhere = "127.0.0.2"

// StartVia is Start for nodes of which each reaches another, which listens at addr, at the address
// that via returns.
func StartVia(nodes int, via func(from, to int, addr string) (string, error)) (c *Cluster,
	err error) {
	bin, err := exec.LookPath("cockroach")
	if err != nil {
		return nil, ErrMissing
	}
	c = &Cluster{}
	if c.dir, err = os.MkdirTemp("", "crdbtest"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	var reserved []net.Listener // until all addresses are found
	defer func() {
		for _, l := range reserved {
			l.Close()
		}
	}()
	for i := range nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return c, err
		}
		reserved = append(reserved, l)
		c.Nodes = append(c.Nodes, &Node{Addr: l.Addr().String(),
			dir: filepath.Join(c.dir, strconv.Itoa(i+1))})
	}
	join, advertised := make([][]string, nodes), make([][]string, nodes)
	for from := range nodes {
		for to, n := range c.Nodes {
			if from == to {
				continue
			}
			addr, err := via(from, to, n.Addr)
			if err != nil {
				return c, err
			}
			join[from] = append(join[from], addr)
			advertised[to] = append(advertised[to], fmt.Sprintf("node=%d@%s", from, addr))
		}
	}
	for i, n := range c.Nodes {
		reserved[i].Close()
		n.args = []string{bin, "start-single-node"}
		if nodes > 1 {
			n.args = []string{bin, "start", "--join=" + strings.Join(join[i], ","),
				fmt.Sprintf("--locality=node=%d", i),
				"--locality-advertise-addr=" + strings.Join(advertised[i], ","),
				"--advertise-addr=" + strings.Replace(n.Addr, "127.0.0.1", nowhere, 1)}
		}
		n.args = append(n.args, "--insecure", "--store=path="+n.dir, "--cache=64MiB",
			"--max-sql-memory=64MiB",
			"--listen-addr="+n.Addr, "--http-addr=127.0.0.1:0")
		if err := n.start(); err != nil {
			return c, err
		}
	}
	if nodes > 1 {
		if err := c.init(bin); err != nil {
			return c, err
		}
	}
	for _, n := range c.Nodes {
		if err := n.ready(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// init joins the nodes to a cluster, as soon as one of them listens.
func (c *Cluster) init(bin string) error {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command(bin, "init", "--insecure", "--host="+c.Nodes[0].Addr).CombinedOutput()
		if err == nil || strings.Contains(string(out), "already been initialized") {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cockroach init: %w: %s", err, out)
		}
	}
}

// DSN returns the URL of a node. The parameters are appended unchanged: "connect_timeout=2".
func (n *Node) DSN(params ...string) string {
	return "postgres://root@" + n.Addr + "/defaultdb?" +
		strings.Join(append([]string{"sslmode=disable"}, params...), "&")
}

// guard kills the node when its standard input ends: by Kill, or with the test process.
const guard = `"$@" >>"$0/out" 2>&1 </dev/null & echo $!; read word; kill -KILL $!; wait $!`

func (n *Node) start() error {
	if err := os.MkdirAll(n.dir, 0o777); err != nil {
		return err
	}
	n.guard = exec.Command("sh", append([]string{"-c", guard, n.dir}, n.args...)...)
	n.guard.Dir = n.dir
	n.guard.Env = append(os.Environ(), "COCKROACH_SKIP_ENABLING_DIAGNOSTIC_REPORTING=true",
		"COCKROACH_SCAN_MAX_IDLE_TIME=10ms") // or each range takes a second to be replicated
	n.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := n.guard.StdoutPipe()
	if err == nil {
		n.stdin, err = n.guard.StdinPipe()
	}
	if err == nil {
		err = n.guard.Start()
	}
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		n.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	return err
}

// ready waits until the node answers.
func (n *Node) ready() error {
	db, err := sql.Open("postgres", n.DSN("connect_timeout=2"))
	if err != nil {
		return err
	}
	defer db.Close()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err = db.QueryRow("SELECT 1").Err(); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the node %s is not ready: %w; see %s", n.Addr, err, n.dir)
		}
	}
}

// Run restarts the node after Kill, and returns when it accepts connections.
func (n *Node) Run() error {
	if err := n.start(); err != nil {
		return err
	}
	return n.ready()
}

// Kill kills the node with SIGKILL, and returns when it is gone.
func (n *Node) Kill() {
	if n.guard != nil && n.guard.Process != nil && n.stdin != nil {
		n.stdin.Close()
		n.guard.Wait()
		n.guard = nil
	}
}

// Signal sends a signal to the node.
func (n *Node) Signal(s syscall.Signal) { syscall.Kill(n.pid, s) }

// Close kills all nodes and deletes their stores.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		n.Kill()
	}
	os.RemoveAll(c.dir)
}
