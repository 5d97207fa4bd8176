//go:build unix && !aix && !solaris

package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver
)

// A target is a database that was asked for.
type target struct {
	server  *pgx.ConnConfig // nil: it is a file
	file    string
	ours    bool // nobody has named the file
	secrets []string
}

var (
	serverSchemes = []string{"postgres", "postgresql", "cockroach", "cockroachdb"}
	fileSchemes   = []string{"file", "sqlite"}
)

// parseTarget reads what --db or LOCK_DB says. Its errors never repeat that: what can't be read may hold a password anywhere.
func parseTarget(s string) (target, error) {
	scheme, rest, hasScheme := strings.Cut(s, ":")
	switch {
	case s == "":
		path, err := defaultFile()
		return target{file: path, ours: true}, err
	case hasScheme && slices.Contains(serverSchemes, scheme) && strings.HasPrefix(rest, "//"):
		return parseServer("postgres:" + rest)
	case hasScheme && slices.Contains(fileSchemes, scheme):
		path, _, query := strings.Cut(rest, "?")
		if query {
			return target{}, errors.New("--db: the path of an SQLite file takes no parameters here")
		}
		return parseFile(strings.TrimPrefix(path, "//"))
	case strings.Contains(s, "://"):
		return target{}, fmt.Errorf("--db: it is a URL, but not one that begins with %s:// or the like", serverSchemes[0])
	case !filepath.IsAbs(s) && !strings.HasPrefix(s, ".") && strings.ContainsAny(s, ":@="):
		// A file of that name would be a lock that no other machine sees.
		return target{}, errors.New("--db: write a server as a URL, postgres://user:password@host:port/database, and a file whose name has :, @ or = in it as ./name")
	default:
		return parseFile(s)
	}
}

func parseFile(path string) (target, error) {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return target{}, errors.New("--db: locks need a file that other processes can see")
	}
	absolute, err := filepath.Abs(path)
	return target{file: absolute}, err
}

func parseServer(dsn string) (target, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return target{}, errors.New("--db: it is not a URL like postgres://user:password@host:port/database (write special characters of a password as %40 and so on)")
	}
	t := target{}
	if password, ok := u.User.Password(); ok {
		t.secrets = append(t.secrets, password, url.QueryEscape(password), url.PathEscape(password), u.User.String())
	}
	for name, values := range u.Query() {
		if strings.Contains(name, "password") {
			t.secrets = append(t.secrets, values...)
		}
	}
	if t.server, err = pgx.ParseConfig(dsn); err != nil {
		// It begins with the URL, as "cannot parse `…`: ".
		why := err.Error()
		if i := strings.LastIndex(why, "`: "); i >= 0 {
			why = why[i+len("`: "):]
		}
		hidden := speaker{secrets: t.secrets}
		return target{}, errors.New("--db: the URL of the server: " + hidden.clean(why))
	}
	t.secrets = append(t.secrets, t.server.Password) // it may also come from PGPASSWORD or a file
	if !u.Query().Has("connect_timeout") && os.Getenv("PGCONNECT_TIMEOUT") == "" {
		t.server.ConnectTimeout = 5 * time.Second
	}
	if t.server.RuntimeParams["application_name"] == "" {
		t.server.RuntimeParams["application_name"] = "lock"
	}
	return t, nil
}

// defaultFile is where the locks are when nobody says anything.
func defaultFile() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // as its specification says
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("neither --db nor LOCK_DB says where the locks are, and the user's state folder can't be found: %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "lock", "locks.db"), nil
}

func (t target) open() (*sql.DB, error) {
	var db *sql.DB
	if t.server != nil {
		db = stdlib.OpenDB(*t.server)
	} else {
		// A folder that is not there may be a misspelt one, or a disk that is not mounted.
		folder := filepath.Dir(t.file)
		if t.ours {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				return nil, err
			}
		} else if _, err := os.Stat(folder); err != nil {
			return nil, err
		}
		u := url.URL{Scheme: "file", Path: t.file, RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"}
		var err error
		if db, err = sql.Open("sqlite", u.String()); err != nil {
			return nil, err
		}
	}
	// Between the renewals of a long lease a connection would be idle for so long that what is on the way may forget it.
	db.SetConnMaxIdleTime(30 * time.Second)
	return db, nil
}
