package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/crdbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// A server keeps the lock that a peer's instances compete for.
type server struct {
	addr     string // host:port, or what a driver takes
	version  string
	requests func() (float64, error) // served so far; nil if nobody counts them
	stop     func()
}

// missing reports whether a server didn't start because it is not installed.
func missing(err error) bool {
	return pgtest.Dispensable(err) || crdbtest.Dispensable(err) ||
		errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

// A program is a server that tells about itself.
type program struct {
	name, file string
	args       func(dir, port string) []string
	question   string         // sent through a connection of its own, which the server closes
	version    *regexp.Regexp // in the answer
	requests   *regexp.Regexp // in the answer; they are added up
}

// guard kills the program and deletes its folder when its standard input ends: by stop, or because
// this process is no more.
const guard = `"$@" >>"$0/out" 2>&1 </dev/null & read word; kill -KILL $!; wait $!; rm -rf "$0"`

// launch starts the program in a folder and on a port of its own, and returns when it answers.
func (p program) launch() (*server, error) {
	file, err := exec.LookPath(p.file)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return nil, err
	}
	port := freePort()
	cmd := exec.Command("sh", append([]string{"-c", guard, dir, file}, p.args(dir, port)...)...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s := &server{addr: "127.0.0.1:" + port}
	s.stop = func() {
		stdin.Close()
		cmd.Wait()
	}
	s.requests = func() (sum float64, err error) {
		found, err := p.find(s.addr, p.requests)
		for _, count := range found {
			n, _ := strconv.ParseFloat(count[1], 64)
			sum += n
		}
		return sum, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		found, err := p.find(s.addr, p.version)
		if err == nil {
			s.version = p.name + " " + found[0][1]
			return s, nil
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(filepath.Join(dir, "out"))
			s.stop()
			return nil, fmt.Errorf("%s did not start within a minute: %w: %s", p.name, err, out)
		}
	}
}

// find asks the server, and returns what it finds in the answer.
func (p program) find(addr string, what *regexp.Regexp) ([][]string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second)) // ZooKeeper may forget who comes early
	if _, err := io.WriteString(conn, p.question); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(conn)
	found := what.FindAllStringSubmatch(string(answer), -1)
	if err == nil && found == nil {
		err = fmt.Errorf("%v is not in the answer to %q", what, p.question)
	}
	return found, err
}

func freePort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // there is no loopback interface
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}
