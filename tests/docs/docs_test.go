// Package docs_test runs what the pages of the project show: their Go code compiles, their SQL
// and commands run and give the shown results, their links lead somewhere. It does not check
// their wording.
package docs_test

import (
	"database/sql"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// A block is a fenced piece of a page.
type block struct {
	at   string // page and line
	info string // what stands behind the fence
	text string
	next *block // the one that follows with nothing but empty lines between
}

// read returns the blocks of a page, and the page without them.
func read(t *testing.T, page string) (blocks []*block, prose string) {
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	var (
		open, last *block
		rest       strings.Builder
	)
	for i, line := range strings.SplitAfter(string(content), "\n") {
		fence := strings.HasPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{at: fmt.Sprintf("%s:%d", page, i+1), info: strings.Trim(line, "` \r\n")}
			blocks = append(blocks, open)
			if last != nil {
				last.next = open
			}
		case fence:
			open, last = nil, open
		case open != nil:
			open.text += line
		default:
			rest.WriteString(line)
			if strings.TrimSpace(line) != "" {
				last = nil
			}
		}
	}
	require.Nil(t, open, "a block of %s has no end", page)
	return blocks, rest.String()
}

// pages returns the pages of the project.
func pages(t *testing.T) (all []string) {
	require.NoError(t, filepath.WalkDir("..", func(page string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		if entry.IsDir() && page != ".." && (strings.HasPrefix(name, ".") || name == "testdata") {
			return filepath.SkipDir
		}
		if err == nil && filepath.Ext(name) == ".md" {
			all = append(all, page)
		}
		return err
	}))
	require.NotEmpty(t, all)
	return all
}

// shown returns the blocks of all pages whose info begins with the word.
func shown(t *testing.T, word string) (blocks []*block) {
	for _, page := range pages(t) {
		all, _ := read(t, page)
		for _, b := range all {
			if first, _, _ := strings.Cut(b.info, " "); first == word {
				blocks = append(blocks, b)
			}
		}
	}
	require.NotEmpty(t, blocks)
	return blocks
}

// Links

var (
	links    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	code     = regexp.MustCompile("`[^`]*`")
	headings = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	noSlug   = regexp.MustCompile(`[^\p{L}\p{N}\s_-]`)
	notes    = regexp.MustCompile(`\[\^[a-z]+\]:?`)
)

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(prose string) map[string]bool {
	all := map[string]bool{}
	for _, m := range headings.FindAllStringSubmatch(prose, -1) {
		title := regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(m[1], "]")
		slug := noSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
		slug = strings.ReplaceAll(slug, " ", "-")
		for n, unique := 1, slug; ; n++ {
			if !all[unique] {
				all[unique] = true
				break
			}
			unique = fmt.Sprintf("%s-%d", slug, n)
		}
	}
	return all
}

func TestPages_links(t *testing.T) {
	for _, page := range pages(t) {
		_, prose := read(t, page)
		for _, m := range links.FindAllStringSubmatch(code.ReplaceAllString(prose, "code"), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" {
				_, prose := read(t, target)
				if !anchors(prose)[anchor] {
					t.Errorf("%s links to %s: there is no such heading", page, m[1])
				}
			}
		}
	}
}

// TestPages_footnotes: each one used is defined, and the other way round.
func TestPages_footnotes(t *testing.T) {
	for _, page := range pages(t) {
		_, prose := read(t, page)
		used, defined := map[string]bool{}, map[string]bool{}
		for _, note := range notes.FindAllString(prose, -1) {
			if name, ok := strings.CutSuffix(note, ":"); ok {
				defined[name] = true
			} else {
				used[note] = true
			}
		}
		require.Equal(t, used, defined, page)
	}
}

// Pictures

func TestPages_pictures(t *testing.T) {
	pictures, err := filepath.Glob("*.svg")
	require.NoError(t, err)
	require.NotEmpty(t, pictures)
	for _, picture := range pictures {
		content, err := os.ReadFile(picture)
		require.NoError(t, err)
		var svg struct {
			Title string `xml:"title"`
			Desc  string `xml:"desc"`
			Style string `xml:"style"`
		}
		require.NoError(t, xml.Unmarshal(content, &svg), picture)
		require.NotEmpty(t, svg.Title, picture)
		require.NotEmpty(t, svg.Desc, picture)
		require.Contains(t, svg.Style, "prefers-color-scheme: dark", picture)
	}
}

// SQL

// command builds the command when the first test needs it, and returns its path.
var command = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "docs")
	if err != nil {
		return "", err
	}
	dbtest.AtEnd(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "lock")
	if out, err := buildCommand(path); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// buildCommand builds the command, which is a module of its own.
func buildCommand(path string) (out []byte, err error) {
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = "../cmd/lock"
	return cmd.CombinedOutput()
}

func TestMain(m *testing.M) {
	// The pages are named relative to their folder.
	if err := os.Chdir("../../docs"); err != nil {
		panic(err)
	}
	os.Exit(dbtest.Main(m))
}

// onDatabases runs a test on PostgreSQL and on CockroachDB.
func onDatabases(t *testing.T, test func(t *testing.T, db *sql.DB)) {
	run := func(t *testing.T, dsn string) {
		db, err := sql.Open("postgres", dsn)
		require.NoError(t, err)
		defer db.Close()
		test(t, db)
	}
	t.Run("PostgreSQL", func(t *testing.T) { run(t, postgres(t)) })
	t.Run("CockroachDB", func(t *testing.T) { run(t, dbtest.CockroachDSN(t)) })
}

func postgres(t *testing.T) string { return dbtest.StartPostgres(t).DSN() }

// rows are the rows of the table in the pages.
var rows = []struct {
	job, componentID, jobID string
	enabled                 bool
	status                  string
	age                     time.Duration // 0: nobody has ever held it
}{
	{"import-2024", "web1/12/HZ3BTKQA", "2024-12-31T00:00:00Z", true, "UNLOCKED",
		400 * 24 * time.Hour},
	{"nightly-backup", "db3/4711/QX7RS2LB", "2026-11-24T02:15:00Z", true, "LOCKED", 12 * time.Minute},
	{"outbox", "web1/207/PIV4EOO7", "2026-11-20T09:00:12Z/ZQ4M2KTC", true, "LOCKED", 7 * time.Second},
	{"payout", "web2/311/ZQ4M2KTC", "2026-11-24T02:21:20Z/LI6JROLL", false, "UNLOCKED",
		250 * time.Second},
	{"report", "", "", false, "UNLOCKED", 0},
}

// fill creates the table again, with the rows.
func fill(t *testing.T, db *sql.DB) *lock.Lock {
	do(t, db, "DROP TABLE IF EXISTS locks")
	l := lock.New(db)
	for _, r := range rows {
		at := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
		if r.age != 0 {
			at = time.Now().UTC().Add(-r.age)
		}
		do(t, db, "INSERT INTO locks VALUES ($1, $2, $3, $4, $5, $6, $7)",
			"shop", r.componentID, r.job, r.jobID, r.enabled, r.status,
			at.Format("2006-01-02 15:04:05.000000+00:00"))
	}
	return l
}

func do(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.Exec(statement, args...)
	require.NoError(t, err)
}

// ask returns the column names and the rows in the format of the pages.
func ask(t *testing.T, db *sql.DB, query, at string) (table [][]string) {
	answer, err := db.Query(query)
	require.NoError(t, err, at)
	defer answer.Close()
	columns, err := answer.Columns()
	require.NoError(t, err)
	table = append(table, columns)
	for answer.Next() {
		values, pointers := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			pointers[i] = &values[i]
		}
		require.NoError(t, answer.Scan(pointers...))
		var row []string
		for _, v := range values {
			switch v := v.(type) {
			case time.Time:
				row = append(row, v.UTC().Format("2006-01-02 15:04:05+00"))
			case []byte:
				row = append(row, string(v))
			default:
				row = append(row, fmt.Sprint(v))
			}
		}
		table = append(table, row)
	}
	require.NoError(t, answer.Err(), at)
	return table
}

var (
	someTime = regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:\d\d:\d\d(\+00|Z)`)
	someAge  = regexp.MustCompile(`^\d\d:\d\d:\d\d$`)
)

// alike reports whether two cells are the same, except for the time that has passed since the
// page was written.
func alike(shown, got string) bool {
	if someAge.MatchString(shown) && someAge.MatchString(got) {
		since := func(s string) time.Duration {
			var h, m, sec time.Duration
			fmt.Sscanf(s, "%d:%d:%d", &h, &m, &sec)
			return h*time.Hour + m*time.Minute + sec*time.Second
		}
		return (since(got) - since(shown)).Abs() < time.Minute
	}
	return someTime.ReplaceAllString(shown, "then") == someTime.ReplaceAllString(got, "then")
}

const roles = "shop_service, oncall, dashboard"

func TestPages_sql(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB) {
		for _, b := range shown(t, "sql") {
			t.Run(b.at, func(t *testing.T) {
				on := strings.TrimPrefix(b.info, "sql")
				if on != "" && !strings.Contains(t.Name(), "/"+on[1:]+"/") {
					t.Skip("for" + on)
				}
				fill(t, db)
				if strings.Contains(b.text, "CREATE ROLE") {
					drop := "DROP OWNED BY " + roles
					if strings.Contains(t.Name(), "/CockroachDB/") {
						drop = "DROP TABLE locks" // 21.1 drops nothing by its owner
					}
					defer do(t, db, drop+"; DROP ROLE "+roles)
				}
				if b.next == nil || b.next.info != "text" {
					do(t, db, b.text)
					return
				}
				var want [][]string
				for line := range strings.Lines(b.next.text) {
					cells := strings.Split(line, " | ")
					for i := range cells {
						cells[i] = strings.TrimSpace(cells[i])
					}
					want = append(want, cells)
				}
				got := ask(t, db, b.text, b.at)
				require.Len(t, got, len(want), "%q", got)
				for i := range want {
					require.Len(t, got[i], len(want[i]))
					for j := range want[i] {
						require.True(t, alike(want[i][j], got[i][j]), "the page shows %q, the database gives %q",
							want[i][j], got[i][j])
					}
				}
			})
		}
	})
}

// find returns the only block of SQL that contains a word.
func find(t *testing.T, word string) string {
	var found []string
	for _, b := range shown(t, "sql") {
		if strings.Contains(b.text, word) {
			found = append(found, b.text)
		}
	}
	require.Len(t, found, 1)
	return found[0]
}

func TestPages_roles(t *testing.T) {
	dsn := postgres(t)
	admin, err := sql.Open("postgres", dsn)
	require.NoError(t, err)
	defer admin.Close()
	fill(t, admin)
	do(t, admin, find(t, "CREATE ROLE"))
	defer do(t, admin, "DROP OWNED BY "+roles+"; DROP ROLE "+roles)

	type calls struct{ lock, disable, list, remove bool }
	for role, may := range map[string]calls{
		"shop_service": {lock: true, disable: true, list: true},
		"oncall":       {lock: true, disable: true, list: true, remove: true},
		"dashboard":    {list: true},
	} {
		t.Run(role, func(t *testing.T) {
			db, err := sql.Open("postgres", dsn+"&role="+role)
			require.NoError(t, err)
			defer db.Close()
			l := lock.New(db)
			can := calls{
				lock: errors.Join(l.Lock("shop", "a", "new", "1", time.Minute),
					l.Unlock("shop", "a", "new", "1")) == nil,
				disable: l.Disable("shop", "outbox") == nil,
			}
			_, err = l.List(t.Context())
			can.list = err == nil
			_, err = db.Exec("DELETE FROM locks WHERE job_name = 'new'")
			can.remove = err == nil
			require.Equal(t, may, can)
		})
	}
}

func TestPages_cleanUp(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB) {
		fill(t, db)
		// As old as the one that goes, but held, or disabled.
		do(t, db, `INSERT INTO locks SELECT component_name, component_id, 'old, held', job_id,
	TRUE, 'LOCKED', lock_time
FROM locks WHERE job_name = 'import-2024'`)
		do(t, db, `INSERT INTO locks SELECT component_name, component_id, 'old, disabled', job_id,
	FALSE, 'UNLOCKED', lock_time
FROM locks WHERE job_name = 'import-2024'`)
		do(t, db, find(t, "DELETE FROM"))
		require.Equal(t, [][]string{{"job_name"}, {"nightly-backup"}, {"old, disabled"}, {"old, held"},
			{"outbox"}, {"payout"},
			{"report"}}, ask(t, db, "SELECT job_name FROM locks ORDER BY job_name", ""))
	})
}

// TestPages_vacuum: PostgreSQL reuses the space of old versions on their page, unless an open
// transaction may still see them.
func TestPages_vacuum(t *testing.T) {
	db, err := sql.Open("postgres", postgres(t))
	require.NoError(t, err)
	defer db.Close()
	l := fill(t, db)
	use := func() (pages int) {
		for range 300 {
			require.NoError(t, l.Lock("shop", "a", "import-2024", "1", time.Hour))
			require.NoError(t, l.Unlock("shop", "a", "import-2024", "1"))
		}
		require.NoError(t, db.QueryRow("SELECT pg_relation_size('locks') / 8192").Scan(&pages))
		return pages
	}
	require.LessOrEqual(t, use(), 2)

	open, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	require.NoError(t, err)
	defer open.Rollback()
	_, err = open.Exec("SELECT 1")
	require.NoError(t, err)
	require.Greater(t, use(), 4)
}
