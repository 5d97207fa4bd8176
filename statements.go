package lock

import "strings"

// A dialect is what a Lock says to one kind of database. Each statement that writes checks and writes in one atomic
// step, by the clock of the database; nothing is ever written on the strength of an earlier read.
//
// On PostgreSQL take and free answer with the row whether they won or not, so a call is one statement (oneStep).
// Elsewhere they answer with a row only when they won and look reads the rest: SQLite has no statement that does both,
// and CockroachDB plans a large statement slower than it runs two small ones.
//
// look, take, takeOnce, free, release and renew answer with the columns that reading.scan takes, list with those and the two
// names before them, check with one column. Their arguments are, in order,
//
//	look      component name, job name
//	list      none
//	take      component name, component ID, job name, job ID, longest duration
//	takeOnce  the same, "once" or NULL, shortest interval since the last lock_time
//	free      component name, component ID, job name, job ID
//	release   the same, first and last lock_time of the term
//	check     the same
//	renew     the same, longest duration
//	set       component name, job name, enabled
//
// where durations, and times as durations since 1970, are a text such as "60000000 microseconds", or NULL for none.
type dialect struct {
	name     string
	oneStep  bool
	create   string
	look     string
	list     string
	take     string
	takeOnce string
	free     string
	release  string
	check    string
	renew    string
	set      string
}

// withTable returns the dialect with the name of the table put in.
func (d dialect) withTable(name string) *dialect {
	for _, text := range []*string{
		&d.create, &d.look, &d.list, &d.take, &d.takeOnce, &d.free, &d.release, &d.check, &d.renew, &d.set,
	} {
		*text = strings.ReplaceAll(*text, "{locks}", name)
	}
	return &d
}

// The columns take NULL, as those of the 2018 package's table do.
const createTable = `CREATE TABLE IF NOT EXISTS {locks} (
	component_name TEXT,
	component_id TEXT,
	job_name TEXT,
	job_id TEXT,
	enabled BOOL,
	status TEXT,
	lock_time TIMESTAMPTZ,
	PRIMARY KEY (component_name, job_name))`

// PostgreSQL and CockroachDB: the parts that both use. Every string argument is cast to text, and durations and times are
// text too, so that all drivers agree with both databases on the arguments' types, whatever the columns' types are. «row» is
// the alias of the row, with a dot, where the statement needs one.
const (
	pastSQL = `coalesce(«row»lock_time, '0001-01-01 00:00:00+00:00')`

	// A row that may be taken. With a NULL duration this is NULL for every locked row: it never expires. The clock is read
	// where the row is judged, after any wait for it.
	takeable = `«row»enabled IS NOT FALSE AND (coalesce(«row»status, 'UNLOCKED') = 'UNLOCKED'
	OR clock_timestamp() > ` + pastSQL + ` + $5::text::interval)`

	// The same for one who stands back from a row whose job ID is as long as its own and sorts after it, or is its own and
	// has been unlocked since, and from a row that was locked a short while ago.
	takeableOnce = `«row»enabled IS NOT FALSE AND CASE WHEN coalesce(«row»status, 'UNLOCKED') = 'UNLOCKED'
	THEN ($6::text IS NULL OR octet_length(coalesce(«row»job_id, '')) <> octet_length($4::text) OR «row»job_id«bytes» < $4::text)
		AND ($7::text IS NULL OR clock_timestamp() > ` + pastSQL + ` + $7::text::interval)
	ELSE ($6::text IS NULL OR octet_length(coalesce(«row»job_id, '')) <> octet_length($4::text) OR «row»job_id«bytes» <= $4::text)
		AND clock_timestamp() > ` + pastSQL + ` + $5::text::interval END`

	// Of two that insert the row, and of any number that update it, one wins; the others judge the row that it wrote.
	// The new lock_time is above the old one even when the clock has stepped back: it is the fencing token.
	onConflictTake = `
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')
WHERE `

	mineSQL = `
WHERE component_name = $1::text AND component_id = $2::text AND job_name = $3::text AND job_id = $4::text AND status <> 'UNLOCKED'`

	termSQL = `
	AND lock_time BETWEEN timestamptz '1970-01-01 00:00:00+00:00' + $5::text::interval
	AND timestamptz '1970-01-01 00:00:00+00:00' + $6::text::interval`

	// What a hand has left NULL is mended.
	freeSQL = `UPDATE {locks} SET status = 'UNLOCKED', enabled = coalesce(enabled, TRUE),
	lock_time = CASE WHEN lock_time IS NULL THEN '0001-01-01 00:00:00+00:00' ELSE lock_time END` + mineSQL

	renewSQL = `UPDATE {locks} SET lock_time = greatest(clock_timestamp(), lock_time + interval '1 microsecond')` + mineSQL + termSQL + `
	AND ($7::text IS NULL OR clock_timestamp() <= lock_time + $7::text::interval)`

	// check writes the row, unchanged, because that is what keeps others from it until the transaction ends, on every engine.
	checkSQL = `UPDATE {locks} SET lock_time = lock_time` + mineSQL + termSQL + `
RETURNING TRUE`

	setSQL = `INSERT INTO {locks} (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1, '', $2, '', $3, 'UNLOCKED', '0001-01-01 00:00:00+00:00')
ON CONFLICT (component_name, job_name) DO UPDATE SET enabled = excluded.enabled`

	listSQL = `SELECT component_name, job_name, NULL, component_id, job_id, enabled, status, lock_time, clock_timestamp(), FALSE
FROM {locks} ORDER BY component_name, job_name`
)

// of puts in the alias of the row, and what makes a text compare by its bytes.
func of(alias, bytes, condition string) string {
	return strings.NewReplacer("«row»", alias, "«bytes»", bytes).Replace(condition)
}

// postgres is also what CockroachDB is told first: both understand it, and its last column tells them apart, which the
// drivers can't.
var postgres = dialect{
	name:     "PostgreSQL",
	oneStep:  true,
	create:   createTable,
	look:     postgresLook,
	list:     listSQL,
	take:     postgresTake(takeable),
	takeOnce: postgresTake(takeableOnce),
	free:     postgresWrite(freeSQL),
	release:  postgresWrite(freeSQL + termSQL),
	check:    checkSQL,
	renew:    postgresWrite(renewSQL),
	set:      setSQL,
}

const postgresLook = `SELECT NULL, component_id, job_id, enabled, status, lock_time, clock_timestamp(), version() LIKE 'CockroachDB%'
FROM {locks} WHERE component_name = $1::text AND job_name = $2::text`

func postgresTake(takeable string) string {
	return postgresWrite(`INSERT INTO {locks} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
SELECT $1::text, $2::text, $3::text, $4::text, TRUE, 'LOCKED', clock_timestamp()
WHERE NOT EXISTS (SELECT 1 FROM {locks} WHERE component_name = $1::text AND job_name = $3::text AND (` +
		of("", ` COLLATE "C"`, takeable) + `) IS NOT TRUE)` + onConflictTake + of("l.", ` COLLATE "C"`, takeable))
}

// postgresWrite tells what a statement wrote, w, and the row as it was before, l. Unless w finds something to do, all of it
// only reads: no row lock, no transaction ID, no write-ahead log.
func postgresWrite(statement string) string {
	return `WITH w AS (
` + statement + `
RETURNING lock_time)
SELECT w.lock_time, l.component_id, l.job_id, l.enabled, l.status, l.lock_time, clock_timestamp(), version() LIKE 'CockroachDB%'
FROM (SELECT 1) AS one LEFT JOIN w ON TRUE
LEFT JOIN {locks} AS l ON l.component_name = $1::text AND l.job_name = $3::text`
}

const cockroachAnswer = `
RETURNING lock_time, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE`

var cockroach = dialect{
	name:     "CockroachDB",
	create:   createTable,
	look:     strings.Replace(postgresLook, "version() LIKE 'CockroachDB%'", "TRUE", 1),
	list:     listSQL,
	take:     cockroachTake(takeable),
	takeOnce: cockroachTake(takeableOnce),
	free:     freeSQL + cockroachAnswer,
	release:  freeSQL + termSQL + cockroachAnswer,
	check:    checkSQL,
	renew:    renewSQL + cockroachAnswer,
	set:      setSQL,
}

func cockroachTake(takeable string) string {
	return `INSERT INTO {locks} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, $2::text, $3::text, $4::text, TRUE, 'LOCKED', clock_timestamp())` +
		onConflictTake + of("l.", "", takeable) + cockroachAnswer
}

// SQLite has no type for times. lock_time is text, in UTC and always of one length, in a column whose declared type lets
// the drivers read it as a time.Time; here it is counted in microseconds since 1970. The clock ticks in milliseconds.
const (
	sqliteNow = `CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000`

	// The zone is read where SQLite can; what a driver wrote with a zone that SQLite can't read is taken as UTC. What is no
	// time at all counts as NULL: it never expires.
	sqliteTime = `(SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t))`

	// next, in microseconds, as the text of a lock_time.
	sqliteText = `strftime('%Y-%m-%d %H:%M:%S', next / 1000000, 'unixepoch') || printf('.%06d+00:00', next % 1000000)`

	sqliteAnswer = `component_id, job_id, enabled, status, ` + sqliteTime + `, ` + sqliteNow + `, FALSE`
)

// forSQLite turns a text for PostgreSQL into one for SQLite, where times and durations are numbers of microseconds. The casts
// to INTEGER read the digits that a duration begins with.
var forSQLite = strings.NewReplacer(
	"clock_timestamp()", sqliteNow,
	of("", "", pastSQL), sqliteTime,
	"lock_time BETWEEN", sqliteTime+" BETWEEN",
	"timestamptz '1970-01-01 00:00:00+00:00' + $5::text::interval", "CAST(?5 AS INTEGER)",
	"timestamptz '1970-01-01 00:00:00+00:00' + $6::text::interval", "CAST(?6 AS INTEGER)",
	"$5::text::interval", "CAST(?5 AS INTEGER)",
	"$7::text::interval", "CAST(?7 AS INTEGER)",
	"octet_length($4::text)", "length(CAST(?4 AS BLOB))",
	"octet_length(coalesce(job_id, ''))", "length(CAST(coalesce(job_id, '') AS BLOB))",
	"::text", "", "$", "?", "TIMESTAMPTZ", "TIMESTAMP").Replace

var sqlite = dialect{
	name:   "SQLite",
	create: forSQLite(createTable),
	look: `SELECT NULL, ` + sqliteAnswer + `
FROM {locks} WHERE component_name = ?1 AND job_name = ?2`,
	list: `SELECT component_name, job_name, NULL, ` + sqliteAnswer + `
FROM {locks} ORDER BY component_name, job_name`,
	take:     sqliteTake(takeable),
	takeOnce: sqliteTake(takeableOnce),
	free:     forSQLite(freeSQL) + sqliteReturning,
	release:  forSQLite(freeSQL+termSQL) + sqliteReturning,
	check:    forSQLite(checkSQL),
	renew: `UPDATE {locks} SET lock_time = (SELECT ` + sqliteText + ` FROM (SELECT max(` + sqliteNow + `, ` + sqliteTime + ` + 1) AS next))` +
		forSQLite(mineSQL+termSQL) + `
	AND (?7 IS NULL OR ` + sqliteNow + ` <= ` + sqliteTime + ` + CAST(?7 AS INTEGER))` + sqliteReturning,
	set: forSQLite(setSQL),
}

const sqliteReturning = `
RETURNING ` + sqliteTime + `, ` + sqliteAnswer

// sqliteTake has the database's one write lock from its beginning, so the row that next is reckoned from is the row that is
// updated.
func sqliteTake(takeable string) string {
	return `WITH term(next) AS (
SELECT max(` + sqliteNow + `, coalesce((SELECT ` + sqliteTime + ` + 1 FROM {locks} WHERE component_name = ?1 AND job_name = ?3), 0)))
INSERT INTO {locks} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
SELECT ?1, ?2, ?3, ?4, TRUE, 'LOCKED', ` + sqliteText + `
FROM term WHERE TRUE
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = excluded.lock_time
WHERE ` + forSQLite(of("", "", takeable)) + sqliteReturning
}
