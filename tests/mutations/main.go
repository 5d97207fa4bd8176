// Command mutations changes the core in one place at a time and shows which test notices.
//
//	go run ./tests/mutations [name...]
//
// Each change is made in a copy of the repository. The tests of the root run first and, if none
// of them fails, the tests on servers. The command prints a row for each change, and fails if no
// test noticed one. A change that the root notices takes half a minute.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A mutation replaces the first occurrence of a text in a file.
type mutation struct{ name, file, from, to string }

var mutations = []mutation{
	{"the token need not grow", "sql/postgres.sql",
		"greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')",
		"clock_timestamp()"},
	{"a disabled job can be locked", "sql/postgres.sql",
		"WHEN NOT l.enabled THEN 'disabled'",
		"WHEN FALSE THEN 'disabled'"},
	{"expiry is never", "sql/postgres.sql",
		"< clock_timestamp() - $5::text::bigint",
		"< clock_timestamp() - 2 * $5::text::bigint"},
	{"a lock without a TTL expires", "sql/postgres.sql",
		"IS NOT TRUE THEN 'held'",
		"IS FALSE THEN 'held'"},
	{"a later tick is no reason", "sql/postgres.sql",
		"> convert_to($4::text, 'UTF8')",
		"< convert_to($4::text, 'UTF8')"},
	{"the same tick is run again", "sql/postgres.sql",
		"AND l.job_id::text = $4::text\n",
		"AND l.job_id::text <> $4::text\n"},
	{"a tick may be ahead", "sql/postgres.sql",
		"THEN 'ahead'",
		"THEN NULL"},
	{"spacing is ignored", "sql/postgres.sql",
		">= clock_timestamp() - $7::text::bigint * interval '1 microsecond' THEN 'already'",
		">= clock_timestamp() - $7::text::bigint * interval '1 microsecond' THEN NULL"},
	{"a rival's row is overwritten", "sql/postgres.sql",
		"r.lock_time IS NOT DISTINCT FROM l.lock_time",
		"TRUE"},
	{"a release in between is overlooked", "sql/postgres.sql",
		"r.status IS NOT DISTINCT FROM l.status",
		"TRUE"},
	{"Disable in between is overlooked", "sql/postgres.sql",
		"r.enabled IS NOT DISTINCT FROM l.enabled",
		"TRUE"},
	{"a time zone is not asked for", "sql/postgres.sql",
		"WHEN 'timestamp without time zone'",
		"WHEN 'never'"},
	{"a renewal frees the term", "sql/postgres.sql",
		"lock_time >= clock_timestamp() - $7::text::bigint * interval '1 microsecond')\nRETURNING",
		"TRUE)\nRETURNING"},
	{"a renewal ignores its term", "sql/postgres.sql",
		"OR lock_time <= timestamptz '1970-01-01 00:00:00+00' + $6",
		"OR TRUE OR lock_time <= timestamptz '1970-01-01 00:00:00+00' + $6"},
	{"a release ignores the holder", "sql/postgres.sql",
		"SET status = 'UNLOCKED', job_id = $7::text",
		"SET status = 'UNLOCKED', job_id = ''"},
	{"Enable frees the lock", "sql/postgres.sql",
		"DO UPDATE SET enabled = excluded.enabled",
		"DO UPDATE SET enabled = excluded.enabled, status = 'UNLOCKED'"},
	{"Delete takes a held lock", "sql/postgres.sql",
		"AND coalesce(status, 'UNLOCKED') = 'UNLOCKED'\nRETURNING TRUE",
		"\nRETURNING TRUE"},
	{"infinity is not read", "sql/postgres.sql",
		"least(greatest(coalesce(l.lock_time, '0001-01-01 00:00:00+00'),",
		"greatest(greatest(coalesce(l.lock_time, '0001-01-01 00:00:00+00'),"},
	{"Check does not lock the row", "sql/postgres.sql",
		"\nFOR UPDATE;",
		";"},
	{"CockroachDB: expiry is never", "sql/cockroach.sql",
		"clock_timestamp() - lock_time <= $3::text::int8",
		"clock_timestamp() - lock_time <= 2 * $3::text::int8"},
	{"CockroachDB: the token need not grow", "sql/cockroach.sql",
		"greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')",
		"clock_timestamp()"},
	{"CockroachDB: a rival's row is overwritten", "sql/cockroach.sql",
		"DO NOTHING\nRETURNING",
		"DO UPDATE SET component_id = excluded.component_id\nRETURNING"},
	{"CockroachDB: a renewal ignores its term", "sql/cockroach.sql",
		"<= $6::text::timestamptz",
		"<= $6::text::timestamptz OR TRUE"},
	{"CockroachDB: the last to acquire does not look", "internal/store/dialect.go",
		"free.TTL = 0",
		"free.TTL = cond.TTL"},
	{"SQLite: expiry is never", "sql/sqlite.sql",
		"(time < now - CAST(?5 AS INTEGER)) IS NOT TRUE",
		"(time < now - 2 * CAST(?5 AS INTEGER)) IS NOT TRUE"},
	{"SQLite: the token need not grow", "sql/sqlite.sql",
		"max(now, coalesce(time + 1, 0)) AS next",
		"now AS next"},
	{"SQLite: a release ignores its term", "sql/sqlite.sql",
		"UPDATE {table} SET status = 'UNLOCKED', job_id = ?7",
		"UPDATE {table} SET status = 'UNLOCKED', job_id = ''"},
	{"memory: expiry a moment early", "internal/store/memory.go",
		"rec.Now.After(rec.LockTime.Add(ttl))",
		"!rec.Now.Before(rec.LockTime.Add(ttl))"},
	{"memory: the same tick is run again", "internal/store/memory.go",
		"rec.JobID == r.JobID && !rec.Locked",
		"rec.JobID == r.JobID && rec.Locked"},
	{"nothing is tried again", "internal/store/call.go",
		"tried >= t.policy.attempts()",
		"tried >= 1"},
	{"a transaction is tried again", "internal/store/call.go",
		"if t.inTransaction || tried",
		"if tried"},
	{"doubt is forgotten", "internal/store/call.go",
		"c.doubt = c.doubt || err != nil && inDoubt(err)\n\treturn err == nil, err",
		"c.doubt = false\n\treturn err == nil, err"},
	{"an unknown outcome is not told", "internal/store/call.go",
		"if c.doubt {\n\t\t\t\terr",
		"if false {\n\t\t\t\terr"},
	{"a stale session is kept", "internal/store/call.go",
		"return driver.ErrBadConn",
		"return nil"},
	{"what is learnt is not used", "internal/store/call.go",
		"case errors.Is(err, errLearned):\n\t\t\tcontinue",
		"case errors.Is(err, errLearned):"},
	{"a renewal retries with a stale term", "internal/store/write.go",
		"if c.doubt { // an attempt",
		"if false { // an attempt"},
	{"an old snapshot is trusted", "internal/store/write.go",
		"case t.inTransaction && res.Prev.HeldBy(r):",
		"case false:"},
	{"a lost race is a refusal", "internal/store/write.go",
		"case res.Refusal == Available:\n\t\t\treturn res, errRaced",
		"case res.Refusal == Available:\n\t\t\treturn res, nil"},
	{"a token that does not grow is taken", "internal/store/write.go",
		"res.Written.After(res.Prev.LockTime)",
		"!res.Written.Before(res.Prev.LockTime)"},
	{"a timeout is not waited out", "internal/store/errors.go",
		`case "55P03", "57014":`,
		`case "never":`},
	{"a stale plan is an error", "internal/store/errors.go",
		`strings.Contains(err.Error(), "cached plan")`,
		`false`},
	{"the deadline has no margin", "internal/lease/state.go",
		"s.sent.Add(s.ttl - s.margin)",
		"s.sent.Add(s.ttl)"},
	{"the age is not subtracted", "internal/lease/state.go",
		"sent.Add(-max(age, 0))",
		"sent"},
	{"a renewal under way is no doubt", "internal/lease/state.go",
		"!s.sent.IsZero() || !s.term.First.After(s.reach)",
		"!s.term.First.After(s.reach)"},
	{"an answer ends the doubt", "internal/lease/state.go",
		"!s.sent.IsZero() || !s.term.First.After(s.reach)",
		"!s.sent.IsZero()"},
	{"trusted at the deadline", "internal/lease/state.go",
		"now.Before(s.deadline)",
		"!now.After(s.deadline)"},
	{"a doubtful release is a loss", "release.go",
		"case doubt.sent && doubt.trusted:",
		"case false:"},
	{"a tick that is given back counts", "job.go",
		"return tickName(j.Tick.Add(-time.Second))",
		"return tickName(j.Tick)"},
	{"a failed tick counts", "run.go",
		"if !job.RetryFailed {",
		"if true {"},
	{"a tick that has not begun counts", "run.go",
		"release := le.GiveBack",
		"release := le.Release"},
	{"refusals are no refusals", "errors.go",
		"func (e *ErrAlreadyRun) Is(target error) bool { return target == ErrRefused }",
		"func (e *ErrAlreadyRun) Is(target error) bool { return false }"},
	{"both IDs may be empty", "lock.go",
		`if r.ComponentID == "" && r.JobID == "" {`,
		`if false {`},
	{"the word is not passed on", "notify.go",
		"if len(t.woke) > 0 {",
		"if false {"},
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

func main() {
	flag.Parse()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	check(err)
	dir, err := os.MkdirTemp("", "mutations")
	check(err)
	defer os.RemoveAll(dir)
	check(exec.Command("cp", "-r", strings.TrimSpace(string(root))+"/.", dir).Run())

	for _, m := range mutations {
		m.text(dir) // or it ends in the middle
	}
	if by := test(dir); by != "" {
		check(fmt.Errorf("%s fails without a change", by))
	}
	unnoticed := 0
	fmt.Println("| change | file | noticed by | seconds |\n| --- | --- | --- | --- |")
	for _, m := range mutations {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), m.name) {
			continue
		}
		start := time.Now()
		by := m.try(dir)
		if by == "" {
			by = "**nobody**"
			unnoticed++
		}
		fmt.Printf("| %s | %s | %s | %.0f |\n", m.name, m.file, by, time.Since(start).Seconds())
	}
	if unnoticed > 0 {
		fmt.Printf("%d changes were not noticed\n", unnoticed)
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(2)
	}
}

// text returns the text of the file in the copy, without the change and with it.
func (m mutation) text(dir string) (text, changed string) {
	read, err := os.ReadFile(filepath.Join(dir, m.file))
	check(err)
	text = string(read)
	if changed = strings.Replace(text, m.from, m.to, 1); changed == text {
		check(fmt.Errorf("%s does not have %q", m.file, m.from))
	}
	return text, changed
}

// try makes the change in the copy, runs the tests, undoes the change, and returns the first test
// that has failed, or "".
func (m mutation) try(dir string) string {
	file := filepath.Join(dir, m.file)
	text, changed := m.text(dir)
	check(os.WriteFile(file, []byte(changed), 0o644))
	defer func() { check(os.WriteFile(file, []byte(text), 0o644)) }()
	return test(dir)
}

// test runs the tests of the copy, and returns the first that has failed, or "".
func test(dir string) string {
	for _, in := range []struct{ dir, packages string }{{".", "./..."}, {"tests", "."}} {
		cmd := exec.Command("go", "test", "-failfast", "-timeout=10m", in.packages)
		cmd.Dir = filepath.Join(dir, in.dir)
		out, err := cmd.CombinedOutput()
		if err == nil {
			continue
		}
		if all := failed.FindAllSubmatch(out, -1); all != nil {
			return string(all[len(all)-1][1]) // the innermost
		}
		return "the build"
	}
	return ""
}
