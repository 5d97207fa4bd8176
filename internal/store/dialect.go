package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Dialects are the statements for each kind of database.
type Dialects struct {
	postgres  *dialect
	cockroach *dialect
	sqlite    *dialect
}

// The names of the dialects, and of the files of their statements.
const (
	Postgres  = "postgres"
	Cockroach = "cockroach"
	SQLite    = "sqlite"
)

// A dialect has the statements for one kind of database.
type dialect struct {
	name       string
	statements map[string]string // by name, with {table} for the table
	acquire    func(context.Context, *call, Conditions) (Result, error)
	peek       func(context.Context, *call, Conditions) (rec Record, refusal string, err error)
	get        func(context.Context, *call) (Record, error)
	instant    func(time.Time) any // as an argument
}

// ReadDialects reads the statements from the files of the dialects in a folder.
// It panics if one of them is missing: they are part of the program.
func ReadDialects(folder fs.FS) *Dialects {
	read := func(d dialect) *dialect {
		text, err := fs.ReadFile(folder, d.name+".sql")
		if err != nil {
			panic(err)
		}
		d.statements = parse(string(text))
		return &d
	}
	return &Dialects{
		postgres: read(dialect{name: Postgres, acquire: acquireInOne, get: getOfTwo,
			instant: microseconds}),
		cockroach: read(dialect{name: Cockroach, acquire: acquireInTwo, peek: peekAtColumns, get: get,
			instant: timestamp}),
		sqlite: read(dialect{name: SQLite, acquire: acquireInTwo, peek: peek, get: get,
			instant: microseconds}),
	}
}

// parse returns the statements of a file. Each begins with a line "-- name: x"; other comments
// are dropped.
func parse(text string) map[string]string {
	statements := map[string]string{}
	for _, part := range strings.Split(text, "-- name: ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		var lines []string
		for _, line := range strings.Split(body, "\n") {
			if !strings.HasPrefix(line, "--") {
				lines = append(lines, line)
			}
		}
		statements[name] = strings.TrimSuffix(strings.TrimSpace(strings.Join(lines, "\n")), ";")
	}
	return statements
}

// with returns the dialect for a table, whose name is quoted.
func (d *dialect) with(table string) *dialect {
	// In strings, the name is dollar-quoted: no setting changes how that is read.
	literal := "$lock$" + table + "$lock$"
	if d.name == SQLite {
		literal = sqliteName(table)
	}
	bound := *d
	bound.statements = make(map[string]string, len(d.statements))
	for name, text := range d.statements {
		text = strings.ReplaceAll(text, "'{table}'", literal)
		bound.statements[name] = strings.ReplaceAll(text, "{table}", table)
	}
	return &bound
}

// sqliteName returns the unquoted name of a table and of its schema, if any, as arguments of a
// function.
func sqliteName(table string) string {
	var names []string
	for _, quoted := range identifier.FindAllStringSubmatch(table, -1) {
		name := strings.ReplaceAll(quoted[1], `""`, `"`) + quoted[2]
		names = append(names, "'"+strings.ReplaceAll(name, "'", "''")+"'")
	}
	slices.Reverse(names)
	return strings.Join(names, ", ")
}

var identifier = regexp.MustCompile(`"((?:[^"]|"")*)"|([^".]+)`)

// text returns the statement with that name.
func (d *dialect) text(name string) string {
	text, ok := d.statements[name]
	if !ok {
		panic(fmt.Sprintf("no statement %s for %s", name, d.name))
	}
	return text
}

// acquireInOne acquires in one statement, which decides and answers.
func acquireInOne(ctx context.Context, c *call, cond Conditions) (Result, error) {
	var res Result
	var written, refusal scalar
	var isCockroach bool
	r := c.req
	_, err := c.write(ctx, "acquire",
		[]any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
			micros(cond.TTL), c.d.instant(cond.Earliest), micros(cond.Spacing), c.patience()},
		append(append([]any{&written}, res.Prev.columns()...), &refusal, &isCockroach)...)
	if err != nil {
		return res, err
	}
	res.Done, res.Written, res.Refusal = written.valid, written.time(), refusal.text
	if err := c.heard(isCockroach); err != nil {
		c.doubt = c.doubt || res.Done
		return res, err
	}
	return res, nil
}

// acquireInTwo reads first, which settles refusals, and then sends the statement that decides. It
// omits the read if this process was the last to acquire the lock, as far as it knows. Then the
// statement doesn't take over an expired lock, since its holder would be unknown.
func acquireInTwo(ctx context.Context, c *call, cond Conditions) (res Result, err error) {
	r := c.req
	if lockTime, ok := c.t.last.get(r); ok && !cond.Tick && cond.Spacing == 0 {
		free := cond
		free.TTL = 0
		res.Prev = Record{Exists: true, Enabled: true, LockTime: lockTime, Now: lockTime}
		err = c.decide(ctx, free, &res)
		if err != nil || res.Done && res.Written.After(lockTime) {
			return res, err
		}
		c.t.last.set(r, time.Time{})
		if res.Done { // the row was deleted since, or keeps no microseconds: read it
			c.release(ctx, Term{First: res.Written, Last: res.Written}, r.JobID)
			return Result{}, errRaced
		}
	}
	res.Prev, res.Refusal, err = c.d.peek(ctx, c, cond)
	if err != nil || res.Refusal != Available {
		return res, err
	}
	return res, c.decide(ctx, cond, &res)
}

// peek reads the record and the reason for a refusal from a server that also answers for a
// missing row.
func peek(ctx context.Context, c *call, cond Conditions) (rec Record, refusal string, err error) {
	r := c.req
	var why scalar
	rec = Record{Exists: true, Enabled: true}
	err = c.read(ctx, "peek", []any{r.ComponentName, r.JobName, r.JobID, micros(cond.TTL),
		c.d.instant(cond.Earliest), micros(cond.Spacing)}, append(rec.columns(), &why)...)
	return rec, why.text, err
}

// peekAtColumns is peek for a server that answers fastest with plain columns.
func peekAtColumns(ctx context.Context, c *call, cond Conditions) (rec Record, refusal string,
	err error) {
	if cond.Tick || cond.Spacing > 0 {
		rec, refusal, err = peek(ctx, c, cond)
	} else {
		var fresh scalar
		rec = Record{Exists: true, Enabled: true, LockTime: earliest}
		err = c.read(ctx, "peek_plain", []any{c.req.ComponentName, c.req.JobName, micros(cond.TTL)},
			append(rec.columns(), &fresh)...)
		switch {
		case !rec.Enabled:
			refusal = Disabled
		case rec.Locked && (cond.TTL == 0 || fresh.text == "true"):
			refusal = Held
		}
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return rec, refusal, err
	}
	rec = Record{Enabled: true}
	if !cond.Tick {
		return rec, Available, nil
	}
	var why scalar
	err = c.read(ctx, "clock", []any{c.d.instant(cond.Earliest)}, (*microsecond)(&rec.Now), &why)
	return rec, why.text, err
}

// decide sends the statement that acquires the lock or doesn't.
func (c *call) decide(ctx context.Context, cond Conditions, res *Result) (err error) {
	var written scalar
	r := c.req
	args := []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID}
	if res.Prev.Exists {
		res.Done, err = c.write(ctx, "acquire", append(args, micros(cond.TTL),
			c.d.instant(cond.Earliest), micros(cond.Spacing)), &written)
	} else {
		res.Done, err = c.write(ctx, "insert", args, &written)
	}
	if res.Written = written.time(); res.Done {
		c.t.last.set(r, res.Written)
	}
	return err
}

// get reads the record.
func get(ctx context.Context, c *call) (rec Record, err error) {
	err = c.read(ctx, "get", []any{c.req.ComponentName, c.req.JobName},
		append(rec.columns(), &rec.Exists)...)
	return rec, err
}

// getOfTwo reads the record from a server that may be CockroachDB. A missing record means nothing
// if row-level security may hide it.
func getOfTwo(ctx context.Context, c *call) (rec Record, err error) {
	var isCockroach, hides bool
	err = c.read(ctx, "get", []any{c.req.ComponentName, c.req.JobName},
		append(rec.columns(), &rec.Exists, &isCockroach)...)
	if err == nil {
		err = c.heard(isCockroach)
	}
	if err != nil || rec.Exists {
		return rec, err
	}
	if err = c.read(ctx, "hides", nil, &hides); err == nil && hides {
		err = errHidden
	}
	return rec, err
}
