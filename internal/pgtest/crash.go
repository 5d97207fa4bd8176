package pgtest

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Processes returns the IDs of the server's processes, the postmaster's first, or none if it
// doesn't run.
func (s *Server) Processes() (pids []int) {
	var postmaster string
	if content, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid")); err == nil {
		postmaster, _, _ = strings.Cut(string(content), "\n")
	}
	// All of them have the data folder as their working directory, even orphans.
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, path := range all {
		if dir, err := os.Readlink(path); err != nil || dir != s.data() {
			continue
		}
		name := filepath.Base(filepath.Dir(path))
		pid, _ := strconv.Atoi(name)
		pids = append(pids, pid)
		if name == postmaster {
			pids[0], pids[len(pids)-1] = pids[len(pids)-1], pids[0]
		}
	}
	return pids
}

// Signal sends a signal to all processes of the server.
func (s *Server) Signal(signal syscall.Signal) {
	for _, pid := range s.Processes() {
		syscall.Kill(pid, signal)
	}
}

// Kill kills all processes of the server with SIGKILL, like the kernel when memory runs out, and
// returns when they are gone. What was committed survives.
func (s *Server) Kill() {
	// The postmaster first, so that it starts no others.
	for pids := s.Processes(); len(pids) > 0; pids = s.Processes() {
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
	io.WriteString(s.stdin, "keep\n")
	s.stdin.Close()
	s.guard.Wait()
	os.Remove(filepath.Join(s.data(), "postmaster.pid")) // it says that the server is ready
}

// Standby starts a server that streams from this one.
func (s *Server) Standby(settings ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	r := &Server{dir: dir, bin: s.bin, login: s.login}
	if s.login != nil {
		if err := os.Chown(dir, int(s.login.Uid), int(s.login.Gid)); err != nil {
			return nil, err
		}
	}
	backup := r.command(filepath.Join(r.bin, "pg_basebackup"), "-D", r.data(), "-h", "127.0.0.1", "-p",
		strconv.Itoa(s.Port),
		"-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync")
	if out, err := backup.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.Port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	r.params = r.parameters(settings)
	if err := r.Run(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return r, nil
}

// Promote promotes a standby, and returns when it is the primary.
func (s *Server) Promote() error {
	out, err := s.command(filepath.Join(s.bin, "pg_ctl"), "promote", "-w", "-D",
		s.data()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_ctl promote: %w: %s", err, out)
	}
	return nil
}
