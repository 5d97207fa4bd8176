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

// A target is the database that --db or LOCK_DB names.
type target struct {
	server  *pgx.ConnConfig // nil: it is a file
	file    string
	ours    bool   // --db local: its folder is created if it is missing
	name    string // for messages: without a password
	secrets []string
}

var (
	serverSchemes = []string{"postgres", "postgresql", "cockroach", "cockroachdb"}
	fileSchemes   = []string{"file", "sqlite"}
)

var errNowhere = errors.New("no database: say --db postgres://host/database, set " +
	"LOCK_DB=postgres://host/database, or say --db local for a file of this user on this machine")

// parseTarget parses --db or LOCK_DB. Its errors never repeat the text: it may contain a password
// anywhere.
func parseTarget(s string) (target, error) {
	scheme, rest, hasScheme := strings.Cut(s, ":")
	switch {
	case s == "":
		return target{}, errNowhere
	case s == "local":
		path, err := localFile()
		return target{file: path, ours: true, name: path}, err
	case hasScheme && slices.Contains(serverSchemes, scheme) && strings.HasPrefix(rest, "//"):
		return parseServer(scheme, rest)
	case hasScheme && slices.Contains(fileSchemes, scheme):
		path, _, query := strings.Cut(rest, "?")
		if query {
			return target{}, errors.New("--db: the path of an SQLite file takes no parameters here")
		}
		return parseFile(strings.TrimPrefix(path, "//"))
	case strings.Contains(s, "://"):
		return target{}, errors.New("--db: this is a URL, but neither postgres:// nor cockroach:// " +
			"nor the path of a file")
	case !filepath.IsAbs(s) && !strings.HasPrefix(s, ".") && strings.ContainsAny(s, ":@="):
		// A file of that name would be a lock that no other machine sees.
		return target{}, errors.New("--db: write a server as a URL, postgres://host/database, " +
			"and a file whose name has :, @ or = in it as ./name")
	default:
		return parseFile(s)
	}
}

func parseFile(path string) (target, error) {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return target{}, errors.New("--db: the locks need a file, which other processes can see")
	}
	absolute, err := filepath.Abs(path)
	return target{file: absolute, name: absolute}, err
}

var errURL = errors.New("--db: this is not a URL like postgres://host:port/database " +
	"(write special characters of the user and the password as %40 and so on)")

// parseServer parses scheme:rest.
func parseServer(scheme, rest string) (target, error) {
	u, err := url.Parse("postgres:" + rest)
	// A password that contains /, ? or # ends the host name too early: the rest of the password
	// would be taken for the name of a database, and printed.
	if err != nil || u.Fragment != "" || strings.HasSuffix(rest, "#") ||
		strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		return target{}, errURL
	}
	t := target{}
	password, secret := u.User.Password()
	if secret {
		_, raw, _ := strings.Cut(strings.TrimPrefix(rest, "//"), ":")
		raw = raw[:max(strings.LastIndex(raw, "@"), 0)]
		t.secrets = append(t.secrets, password, raw, url.QueryEscape(password),
			url.PathEscape(password))
	}
	for name, values := range u.Query() {
		if strings.Contains(strings.ToLower(name), "pass") {
			t.secrets, secret = append(t.secrets, values...), true
		}
	}
	if t.server, err = pgx.ParseConfig(u.String()); err != nil {
		if secret { // the driver may repeat any part of it
			return target{}, errors.New("--db: the port or a parameter of the URL is wrong")
		}
		why := err.Error() // it begins with the URL, as "cannot parse `…`: "
		why = why[strings.LastIndex(why, "`: ")+1:]
		return target{}, errors.New("--db: the URL is wrong: " + why)
	}
	t.secrets = append(t.secrets, t.server.Password) // it may come from PGPASSWORD or a file
	if !u.Query().Has("connect_timeout") && os.Getenv("PGCONNECT_TIMEOUT") == "" {
		t.server.ConnectTimeout = 5 * time.Second
	}
	if t.server.RuntimeParams["application_name"] == "" {
		t.server.RuntimeParams["application_name"] = "lock"
	}
	t.name = serverName(scheme, t.server)
	return t, nil
}

// serverName is the URL of a server without its password and parameters.
func serverName(scheme string, c *pgx.ConnConfig) string {
	u := url.URL{Scheme: scheme, Path: "/" + c.Database}
	if c.User != "" && !strings.Contains(c.User, ":") {
		u.User = url.User(c.User)
	}
	hosts := []string{fmt.Sprintf("%s:%d", c.Host, c.Port)}
	for _, other := range c.Fallbacks { // with and without TLS
		if host := fmt.Sprintf("%s:%d", other.Host, other.Port); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	u.Host = strings.Join(hosts, ",")
	name, err := url.PathUnescape(u.String())
	if err != nil {
		return u.String()
	}
	return name
}

// localFile is the file of --db local.
func localFile() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // as the XDG specification requires
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("--db local: the user's state folder can't be found: %w", err)
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
		// A missing folder may be misspelt, or on a disk that is not mounted.
		folder := filepath.Dir(t.file)
		if t.ours {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				return nil, err
			}
		} else if _, err := os.Stat(folder); err != nil {
			return nil, err
		}
		u := url.URL{Scheme: "file", Path: t.file,
			RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"}
		var err error
		if db, err = sql.Open("sqlite", u.String()); err != nil {
			return nil, err
		}
	}
	// Between the renewals of a long lease, a firewall may drop an idle connection.
	db.SetConnMaxIdleTime(30 * time.Second)
	return db, nil
}
