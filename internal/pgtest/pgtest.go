// Package pgtest starts PostgreSQL servers for tests, each in its own folder and on its own port,
// and stops them with the test.
package pgtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Server is a PostgreSQL server on the loopback interface that accepts every user without a
// password.
type Server struct {
	Port   int
	dir    string
	bin    string
	login  *syscall.Credential
	guard  *exec.Cmd
	stdin  io.WriteCloser
	params []string
}

// ErrMissing is the error of Start if PostgreSQL is not installed.
var ErrMissing = errors.New("PostgreSQL's initdb and postgres are neither on PATH nor under " +
	"/usr/lib/postgresql")

// Dispensable reports whether to skip a test after the error of Start: PostgreSQL is not
// installed, and LOCK_TEST_POSTGRES=required is not set.
func Dispensable(err error) bool {
	return errors.Is(err, ErrMissing) && os.Getenv("LOCK_TEST_POSTGRES") != "required"
}

// Start creates a cluster, starts its server with settings such as "fsync=off", and returns when
// it accepts connections.
func Start(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.init(settings); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := s.Run(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// DSN returns the URL of a database of the server. The parameters are appended unchanged:
// "search_path=x".
func (s *Server) DSN(params ...string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?%s", s.Port,
		strings.Join(append([]string{"sslmode=disable"}, params...), "&"))
}

// binaries returns the folder of the newest installation, or LOCK_TEST_POSTGRES_BIN.
func binaries() (string, error) {
	if dir := os.Getenv("LOCK_TEST_POSTGRES_BIN"); dir != "" {
		return dir, nil
	}
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		// A link leads to the folder of all programs.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(installed, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(dirs, installed...) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", ErrMissing
}

func version(bin string) int {
	v, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return v
}

func (s *Server) init(settings []string) error {
	// PostgreSQL refuses to run as root.
	if os.Geteuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			if account, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		s.login = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	initdb := s.command(filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", "postgres", "-A",
		"trust", "-E", "UTF8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	s.params = s.parameters(settings)
	return nil
}

func (s *Server) parameters(settings []string) []string {
	params := []string{"-D", s.data(), "-p", strconv.Itoa(s.Port), "-k", s.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"}
	for _, setting := range settings {
		params = append(params, "-c", setting)
	}
	return params
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.login}
	return cmd
}

// guard stops the server when Stop or Close tells it to on its standard input, or when that ends
// with the test process. Only after Stop it keeps the data.
const guard = `dir=$1; shift
"$@" >>"$dir/log" 2>&1 </dev/null &
read word
kill -INT $!
wait $!
[ "$word" = keep ] || rm -rf "$dir"`

// Run restarts the server after Stop or Kill, and returns when it accepts connections.
func (s *Server) Run() error {
	s.guard = s.command("sh", append([]string{"-c", guard, "sh", s.dir, filepath.Join(s.bin,
		"postgres")}, s.params...)...)
	stdin, err := s.guard.StdinPipe()
	if err != nil {
		return err
	}
	s.stdin = stdin
	if err := s.guard.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if s.ready() {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.Close()
			return fmt.Errorf("PostgreSQL did not start within a minute: %s", log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ready reads the server's state from the last line of its postmaster.pid. A standby has another
// word for it.
func (s *Server) ready() bool {
	content, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	status := strings.TrimSpace(string(content))
	return err == nil && (strings.HasSuffix(status, "ready") || strings.HasSuffix(status, "standby") &&
		s.hot())
}

// hot reports whether a standby accepts queries.
func (s *Server) hot() bool {
	c, err := net.Dial("unix", filepath.Join(s.dir, fmt.Sprintf(".s.PGSQL.%d", s.Port)))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// Stop stops the server. It cuts connections and keeps what was committed.
func (s *Server) Stop() {
	io.WriteString(s.stdin, "keep\n")
	s.stdin.Close()
	s.guard.Wait()
}

// Close stops the server and deletes its data.
func (s *Server) Close() {
	s.stdin.Close()
	s.guard.Wait()
	os.RemoveAll(s.dir)
}
