package docs_test

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// build returns the path of the command lock, built from this checkout.
func build(t *testing.T) string {
	if runtime.GOOS == "windows" {
		t.Skip("the command is not for Windows")
	}
	path, err := command()
	require.NoError(t, err)
	return path
}

var (
	// What differs from day to day.
	age    = regexp.MustCompile(`\b(\d+(\.\d+)?[dhms])+( |\b)`)
	spaces = regexp.MustCompile(` {2,}`)
)

func normal(output string) string {
	output = age.ReplaceAllString(someTime.ReplaceAllString(output, "then"), "a while ")
	var lines []string
	for line := range strings.Lines(output) {
		lines = append(lines, strings.TrimSpace(spaces.ReplaceAllString(line, " ")))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// TestPages_commands runs the commands on an SQLite file with the rows of the pages.
func TestPages_commands(t *testing.T) {
	bin := build(t)
	for _, b := range shown(t, "console") {
		t.Run(b.at, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "locks.db")
			db, err := sql.Open("sqlite", path)
			require.NoError(t, err)
			fill(t, db)
			require.NoError(t, db.Close())

			var got strings.Builder
			for line := range strings.Lines(b.text) {
				command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ lock ")
				if !ok {
					continue // output
				}
				got.WriteString("$ lock " + command + "\n")
				cmd := exec.Command(bin, strings.Fields(command)...)
				cmd.Env = append(os.Environ(), "LOCK_DB="+path, "LOCK_COMPONENT=shop")
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
				got.WriteString(strings.ReplaceAll(string(out), path, "postgres://oncall@db.example/shop"))
			}
			require.Equal(t, normal(b.text), normal(got.String()))
		})
	}
}

var (
	calls  = regexp.MustCompile(`(?:^|[\s;])(?:lock|go run \./cmd/lock) ([a-z]+)(.*)`)
	inline = regexp.MustCompile("`lock ([a-z]+)([^`]*)`")
	flags  = regexp.MustCompile(`(?:^|\s)(--?[a-z][a-z-]*)`)
)

// TestPages_flags: the flags in commands and in text exist.
func TestPages_flags(t *testing.T) {
	bin := build(t)
	helps := map[string]string{}
	help := func(command string) string {
		if _, ok := helps[command]; !ok {
			out, err := exec.Command(bin, command, "--help").Output()
			if err != nil || !strings.Contains(string(out), "lock "+command) {
				out = nil
			}
			helps[command] = string(out)
		}
		return helps[command]
	}
	check := func(at, command, arguments string) {
		arguments, _, _ = strings.Cut(arguments, " -- ")
		for _, m := range flags.FindAllStringSubmatch(arguments, -1) {
			if !regexp.MustCompile(`(^|\s)` + m[1] + `[, ]`).MatchString(help(command)) {
				t.Errorf("%s: lock %s has no %s", at, command, m[1])
			}
		}
	}

	seen := 0
	for _, page := range pages(t) {
		blocks, prose := read(t, page)
		for _, b := range blocks {
			switch b.info {
			case "sh", "console", "crontab":
			default:
				continue
			}
			for line := range strings.Lines(b.text) {
				line, _, _ = strings.Cut(line, " # ")
				for _, m := range calls.FindAllStringSubmatch(line, -1) {
					seen++
					if help(m[1]) == "" {
						t.Errorf("%s: there is no lock %s", b.at, m[1])
						continue
					}
					check(b.at, m[1], m[2])
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(prose, -1) {
			if help(m[1]) != "" { // the messages of a log begin with lock, too
				seen++
				check(page, m[1], m[2])
			}
		}
	}
	require.NotZero(t, seen)
}
