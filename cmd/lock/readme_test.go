//go:build unix && !aix && !solaris

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func readme(t *testing.T) string {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}

// The README shows what is printed.
func TestReadme(t *testing.T) {
	t.Parallel()
	text := readme(t)
	for code, words := range statusHelp {
		if code != exitSignal { // whose row is about lock run alone
			row := fmt.Sprintf("\n| %d | %s |\n", code, words)
			require.True(t, strings.Contains(strings.ReplaceAll(text, "`", ""), row), row)
		}
	}
	asked := time.Date(2026, 11, 22, 14, 30, 5, 0, time.UTC)
	tick := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	shown := table([]entry{
		{Component: "shop", Job: "deploy", Enabled: true, Last: &holder{
			ComponentID: "ci/88/5YPNQIJE", JobID: "2026-11-22T14:30:05Z/LI6JROLL", Started: &asked,
			AgeSeconds: (80 * time.Hour).Seconds()}},
		{Component: "shop", Job: "nightly-backup", Enabled: true, Held: true, Holder: &holder{
			ComponentID: "db3/4711/QX7RS2LB", JobID: "2026-11-25T00:00:00Z", Started: &tick,
			AgeSeconds: 12}},
		{Component: "shop", Job: "outbox", Last: &holder{
			ComponentID: "web1/207/PIV4EOO7", JobID: "by-hand",
			AgeSeconds: 250}},
	}, tableWidth, false)
	shown = databaseTitle + "postgres://backup@db.example:5432/ops\n" + shown
	require.True(t, strings.Contains(text, "```\n$ lock list\n"+shown+"```\n"), shown)
}

// The crontab's line, on five servers.
func TestReadmeCrontab(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`(?m)^15 2 \* \* \*  (.*)$`).FindStringSubmatch(readme(t))
	require.NotNil(t, line)
	require.NotRegexp(t, `[^\\]%`, line[1], "cron would end the line there")
	script := strings.ReplaceAll(line[1], `\%`, "%")
	script = strings.Replace(script, "/opt/backup.sh", `sh -c 'echo "$LOCK_HELD_JOB_ID"'`, 1)

	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "date"), []byte("#!/bin/sh\n"+
		"[ \"$*\" = '-u +%F' ] && echo 2026-11-23\n"), 0o700))
	require.NoError(t, os.Symlink(binary, filepath.Join(bin, "lock")))
	u := sqliteUser(t).with("PATH=" + bin + ":" + os.Getenv("PATH"))
	var made string
	for range 5 {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env = u.env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		made += string(out)
	}
	require.Equal(t, "2026-11-23T00:00:00Z\n", made)
}
