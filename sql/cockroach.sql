-- The statements for CockroachDB 21.1 and later. {table} is the name of the table.
--
-- Arguments and answers are those of postgres.sql, except that times are times: their text depends on no
-- setting here. A read by key comes first, which settles refusals. The statement that writes decides alone.
-- It returns plain columns: with an expression, CockroachDB commits in a second step.

-- name: create
CREATE TABLE IF NOT EXISTS {table} (
	component_name TEXT,
	component_id TEXT,
	job_name TEXT,
	job_id TEXT,
	enabled BOOL,
	status TEXT,
	lock_time TIMESTAMPTZ,
	PRIMARY KEY (component_name, job_name));

-- name: peek_plain
-- $1 component name, $2 job name, $3 TTL. The answer is the row of the lock, and whether the TTL has not
-- passed, or no row. All but the simplest expressions over columns take twice as long as the rest of the
-- statement: CockroachDB then runs it row by row.
SELECT component_id, job_id, enabled, status <> 'UNLOCKED', lock_time, clock_timestamp(),
	clock_timestamp() - lock_time <= $3::text::int8 * interval '1 microsecond'
FROM {table} WHERE component_name = $1::text AND job_name = $2::text;

-- name: peek
-- $1 component name, $2 job name, $3 job ID, $4 TTL, $5 the earliest time for the tick, $6 the spacing.
-- The answer is the row of the lock and the reason for a refusal, or NULL; or no row.
SELECT coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED',
	least(greatest(coalesce(lock_time, '0001-01-01 00:00:00+00'), '0001-01-01 00:00:00+00'),
		'9999-12-31 23:59:59.999999+00'),
	clock_timestamp(),
	CASE
		WHEN NOT l.enabled THEN 'disabled'
		WHEN clock_timestamp() < $5::text::timestamptz THEN 'ahead'
		WHEN $5::text IS NOT NULL AND l.job_id LIKE '____-__-__T__:__:__Z' AND l.job_id > $3::text THEN 'already'
		WHEN $5::text IS NOT NULL AND l.job_id = $3::text
			AND coalesce(l.status, 'UNLOCKED') = 'UNLOCKED' THEN 'already'
		WHEN l.status <> 'UNLOCKED' AND (coalesce(l.lock_time, '0001-01-01 00:00:00+00')
			< clock_timestamp() - $4::text::int8 * interval '1 microsecond') IS NOT TRUE THEN 'held'
		WHEN coalesce(l.status, 'UNLOCKED') = 'UNLOCKED'
			AND l.lock_time >= clock_timestamp() - $6::text::int8 * interval '1 microsecond' THEN 'already'
		END
FROM {table} AS l WHERE component_name = $1::text AND job_name = $2::text;

-- name: clock
-- $1 the earliest time for a tick of a lock that has no row. The answer is the present time and the reason
-- for a refusal, or NULL.
SELECT clock_timestamp(),
	CASE WHEN clock_timestamp() < $1::text::timestamptz THEN 'ahead' END;

-- name: acquire
-- $1 to $7 as in postgres.sql. The answer is the lock_time that was written, or no row.
UPDATE {table} AS l SET component_id = $2::text, job_id = $4::text, enabled = TRUE, status = 'LOCKED',
	lock_time = greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')
WHERE component_name = $1::text AND job_name = $3::text AND CASE
		WHEN NOT l.enabled THEN 'disabled'
		WHEN clock_timestamp() < $6::text::timestamptz THEN 'ahead'
		WHEN $6::text IS NOT NULL AND l.job_id LIKE '____-__-__T__:__:__Z' AND l.job_id > $4::text THEN 'already'
		WHEN $6::text IS NOT NULL AND l.job_id = $4::text
			AND coalesce(l.status, 'UNLOCKED') = 'UNLOCKED' THEN 'already'
		WHEN l.status <> 'UNLOCKED' AND (coalesce(l.lock_time, '0001-01-01 00:00:00+00')
			< clock_timestamp() - $5::text::int8 * interval '1 microsecond') IS NOT TRUE THEN 'held'
		WHEN coalesce(l.status, 'UNLOCKED') = 'UNLOCKED'
			AND l.lock_time >= clock_timestamp() - $7::text::int8 * interval '1 microsecond' THEN 'already'
		END IS NULL
RETURNING lock_time;

-- name: insert
-- $1 to $4 as in acquire. The answer is the lock_time that was written, or no row if there is one already.
INSERT INTO {table} (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, $2::text, $3::text, $4::text, TRUE, 'LOCKED', clock_timestamp())
ON CONFLICT (component_name, job_name) DO NOTHING
RETURNING lock_time;

-- name: renew
UPDATE {table} SET lock_time = greatest(clock_timestamp(), lock_time + interval '1 microsecond')
WHERE component_name = $1::text AND job_name = $3::text
	AND component_id = $2::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND ($5::text IS NULL OR lock_time >= $5::text::timestamptz)
	AND ($6::text IS NULL
		OR coalesce(lock_time, '0001-01-01 00:00:00+00') <= $6::text::timestamptz)
	AND ($7::text IS NULL OR lock_time >= clock_timestamp() - $7::text::int8 * interval '1 microsecond')
RETURNING lock_time, enabled;

-- name: release
UPDATE {table} SET status = 'UNLOCKED', job_id = $7::text, enabled = coalesce(enabled, TRUE),
	lock_time = coalesce(lock_time, '0001-01-01 00:00:00+00')
WHERE component_name = $1::text AND job_name = $3::text
	AND component_id = $2::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND ($5::text IS NULL OR lock_time >= $5::text::timestamptz)
	AND ($6::text IS NULL
		OR coalesce(lock_time, '0001-01-01 00:00:00+00') <= $6::text::timestamptz)
RETURNING status;

-- name: enable
INSERT INTO {table} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, '', $2::text, '', $3::text::bool, 'UNLOCKED', '0001-01-01 00:00:00+00')
ON CONFLICT (component_name, job_name) DO UPDATE SET enabled = excluded.enabled;

-- name: delete
DELETE FROM {table}
WHERE component_name = $1::text AND job_name = $2::text AND coalesce(status, 'UNLOCKED') = 'UNLOCKED'
RETURNING status;

-- name: get
-- The answer is one row: the row of the lock, and whether there is one.
SELECT coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED',
	least(greatest(coalesce(lock_time, '0001-01-01 00:00:00+00'), '0001-01-01 00:00:00+00'),
		'9999-12-31 23:59:59.999999+00'),
	clock_timestamp(),
	component_name IS NOT NULL
FROM (SELECT 1) AS one LEFT JOIN {table} ON component_name = $1::text AND job_name = $2::text;

-- name: fence
SELECT coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED',
	least(greatest(coalesce(lock_time, '0001-01-01 00:00:00+00'), '0001-01-01 00:00:00+00'),
		'9999-12-31 23:59:59.999999+00'),
	clock_timestamp()
FROM {table} WHERE component_name = $1::text AND job_name = $2::text
FOR UPDATE;

-- name: probe
INSERT INTO {table} (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, '', $2::text, '', TRUE, 'UNLOCKED', '0001-01-01 00:00:00+00')
ON CONFLICT (component_name, job_name) DO NOTHING;

-- name: list
SELECT coalesce(component_name, ''), coalesce(job_name, ''),
	coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED',
	least(greatest(coalesce(lock_time, '0001-01-01 00:00:00+00'), '0001-01-01 00:00:00+00'),
		'9999-12-31 23:59:59.999999+00'),
	clock_timestamp()
FROM {table} ORDER BY component_name, job_name;

-- name: problems
-- The answer is a row for each thing that is wrong: what it is and what to do.
SELECT 'the column ' || want.name || ' has the type ' || coalesce(c.data_type, 'of no column')
	|| coalesce('(' || c.datetime_precision::text || ')', '') || ': make it ' || want.type
FROM (VALUES ('component_name', 'text', 'TEXT'), ('component_id', 'text', 'TEXT'), ('job_name', 'text', 'TEXT'),
	('job_id', 'text', 'TEXT'), ('enabled', 'boolean', 'BOOL'), ('status', 'text', 'TEXT'),
	('lock_time', 'timestamp with time zone', 'TIMESTAMPTZ')) AS want (name, data_type, type)
LEFT JOIN (SELECT i.column_name, i.data_type, i.datetime_precision FROM information_schema.columns AS i
	JOIN pg_catalog.pg_class AS c ON c.relname = i.table_name
	JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = i.table_schema
	WHERE c.oid = '{table}'::regclass::oid) AS c ON c.column_name = want.name
WHERE c.column_name IS NULL OR c.datetime_precision < 6 OR (want.data_type <> c.data_type
	AND NOT (want.data_type = 'text' AND c.data_type IN ('character varying', 'character')))
UNION ALL
SELECT 'the table has no primary key or unique index on (component_name, job_name): '
	|| 'two callers can insert the same lock. Add it'
WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index AS i WHERE i.indrelid = '{table}'::regclass::oid
	AND i.indisunique AND (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_catalog.pg_attribute AS a
		WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) = 'component_name,job_name')
UNION ALL
SELECT 'the session can only read: use a session that may write'
WHERE current_setting('transaction_read_only') <> 'off';
