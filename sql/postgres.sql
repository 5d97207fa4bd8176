-- The statements for PostgreSQL 12 and later. {table} is the name of the table.
--
-- Arguments are text. Durations and times are whole microseconds, times since 1970; NULL means none.
-- A row is read as: component ID, job ID, enabled, locked, lock_time, the present time.
-- A lock_time outside of the years 1 to 9999 is read as the nearest time within.
-- Every statement is one atomic step, and uses clock_timestamp() at the moment of the decision.

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

-- name: acquire
-- $1 component name, $2 component ID, $3 job name, $4 job ID, $5 TTL, NULL if the lock never expires,
-- $6 the earliest time for the tick, NULL if the run is no tick, $7 the spacing, NULL if there is none,
-- $8 'wait' to wait for a rival.
--
-- The answer is the lock_time that was written, or NULL; the previous row; the reason for a refusal, or
-- NULL; and whether the server is CockroachDB. If nothing was written and there is no reason, a rival was
-- quicker: send the statement again.
--
-- A refusal only reads: no row lock, no transaction ID, no write-ahead log. Of the rivals that may acquire
-- the row, one goes on to write. The others would wait for its commit, and commit in turn, to be refused;
-- they give up at once instead, unless $8 makes them wait. The advisory lock is only a short cut: the row
-- decides, which must still be the one that was judged.
-- A lock_time without time zone depends on the session: it fails the cast.
WITH this_row AS (
	SELECT l.*,
		CASE
			WHEN NOT l.enabled THEN 'disabled'
			WHEN clock_timestamp() < timestamptz '1970-01-01 00:00:00+00'
				+ $6::text::bigint * interval '1 microsecond' THEN 'ahead'
			WHEN $6::text IS NOT NULL AND l.job_id::text LIKE '____-__-__T__:__:__Z'
				AND convert_to(l.job_id::text, 'UTF8') > convert_to($4::text, 'UTF8') THEN 'already'
			WHEN $6::text IS NOT NULL AND l.job_id::text = $4::text
				AND coalesce(l.status, 'UNLOCKED') = 'UNLOCKED' THEN 'already'
			WHEN l.status <> 'UNLOCKED' AND (coalesce(l.lock_time, '0001-01-01 00:00:00+00')
				< clock_timestamp() - $5::text::bigint * interval '1 microsecond') IS NOT TRUE THEN 'held'
			WHEN coalesce(l.status, 'UNLOCKED') = 'UNLOCKED' AND l.lock_time
				>= clock_timestamp() - $7::text::bigint * interval '1 microsecond' THEN 'already'
		END AS refusal
	FROM (SELECT 1) AS one
	LEFT JOIN {table} AS l ON l.component_name = $1::text AND l.job_name = $3::text
), this_acquisition AS (
	INSERT INTO {table} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
	SELECT $1::text, $2::text, $3::text, $4::text, TRUE, 'LOCKED', clock_timestamp()
	FROM this_row
	WHERE CASE WHEN refusal IS NULL THEN $8::text IS NOT NULL
		OR pg_try_advisory_xact_lock('{table}'::regclass::oid::int, hashtext($1::text || $3::text)) END
	ON CONFLICT (component_name, job_name) DO UPDATE SET
		component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
		lock_time = greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')
	WHERE EXISTS (SELECT 1 FROM this_row AS r WHERE r.lock_time IS NOT DISTINCT FROM l.lock_time
		AND r.status IS NOT DISTINCT FROM l.status AND r.enabled IS NOT DISTINCT FROM l.enabled
		AND r.job_id IS NOT DISTINCT FROM l.job_id)
	RETURNING CASE pg_typeof(l.lock_time)::text WHEN 'timestamp without time zone'
		THEN ('the column lock_time is ' || pg_typeof(l.lock_time)::text || ': make it TIMESTAMPTZ')::bigint
		ELSE (extract(epoch FROM least(greatest(l.lock_time, '0001-01-01 00:00:00+00'),
			'9999-12-31 23:59:59.999999+00')) * 1000000)::bigint
		END AS written
)
SELECT (SELECT written FROM this_acquisition),
	coalesce(l.component_id::text, ''), coalesce(l.job_id::text, ''), coalesce(l.enabled, TRUE),
	coalesce(l.status::text, 'UNLOCKED') <> 'UNLOCKED',
	(extract(epoch FROM least(greatest(coalesce(l.lock_time, '0001-01-01 00:00:00+00'),
		'0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')) * 1000000)::bigint,
	(extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
	l.refusal,
	version() LIKE 'CockroachDB%'
FROM this_row AS l;

-- name: renew
-- $1 component name, $2 component ID, $3 job name, $4 job ID, $5 and $6 the first and the last lock_time
-- of the term, NULL if it has no bound, $7 TTL, NULL if the lock never expires.
-- The answer is the lock_time that was written and whether the job is enabled, or no row.
UPDATE {table} SET lock_time = greatest(clock_timestamp(), lock_time + interval '1 microsecond')
WHERE component_name = $1::text AND job_name = $3::text
	AND component_id = $2::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND ($5::text IS NULL
		OR lock_time >= timestamptz '1970-01-01 00:00:00+00' + $5::text::bigint * interval '1 microsecond')
	AND ($6::text IS NULL
		OR lock_time <= timestamptz '1970-01-01 00:00:00+00' + $6::text::bigint * interval '1 microsecond')
	AND ($7::text IS NULL OR lock_time >= clock_timestamp() - $7::text::bigint * interval '1 microsecond')
RETURNING (extract(epoch FROM least(lock_time, '9999-12-31 23:59:59.999999+00')) * 1000000)::bigint,
	coalesce(enabled, TRUE);

-- name: release
-- $1 to $6 as for renew, $7 the job ID that stays in the row.
-- The answer is TRUE, or no row. NULLs are replaced by the values that they are read as.
UPDATE {table} SET status = 'UNLOCKED', job_id = $7::text, enabled = coalesce(enabled, TRUE),
	lock_time = coalesce(lock_time, '0001-01-01 00:00:00+00')
WHERE component_name = $1::text AND job_name = $3::text
	AND component_id = $2::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND ($5::text IS NULL
		OR lock_time >= timestamptz '1970-01-01 00:00:00+00' + $5::text::bigint * interval '1 microsecond')
	AND ($6::text IS NULL
		OR lock_time <= timestamptz '1970-01-01 00:00:00+00' + $6::text::bigint * interval '1 microsecond')
RETURNING TRUE;

-- name: enable
-- $1 component name, $2 job name, $3 'true' or 'false'.
INSERT INTO {table} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, '', $2::text, '', $3::text::boolean, 'UNLOCKED', '0001-01-01 00:00:00+00')
ON CONFLICT (component_name, job_name) DO UPDATE SET enabled = excluded.enabled;

-- name: delete
-- $1 component name, $2 job name. The answer is TRUE, or no row.
DELETE FROM {table}
WHERE component_name = $1::text AND job_name = $2::text AND coalesce(status, 'UNLOCKED') = 'UNLOCKED'
RETURNING TRUE;

-- name: get
-- $1 component name, $2 job name. The answer is one row: the row of the lock, whether there is one, and
-- whether the server is CockroachDB.
SELECT coalesce(l.component_id::text, ''), coalesce(l.job_id::text, ''), coalesce(l.enabled, TRUE),
	coalesce(l.status::text, 'UNLOCKED') <> 'UNLOCKED',
	(extract(epoch FROM least(greatest(coalesce(l.lock_time, '0001-01-01 00:00:00+00'),
		'0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')) * 1000000)::bigint,
	(extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
	l.component_name IS NOT NULL,
	version() LIKE 'CockroachDB%'
FROM (SELECT 1) AS one
LEFT JOIN {table} AS l ON l.component_name = $1::text AND l.job_name = $2::text;

-- name: fence
-- $1 component name, $2 job name. The answer is the row of the lock, or no row. Until the transaction
-- ends, nobody else can change it. If its snapshot is older than the row, the transaction fails.
SELECT coalesce(component_id::text, ''), coalesce(job_id::text, ''), coalesce(enabled, TRUE),
	coalesce(status::text, 'UNLOCKED') <> 'UNLOCKED',
	(extract(epoch FROM least(greatest(coalesce(lock_time, '0001-01-01 00:00:00+00'),
		'0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')) * 1000000)::bigint,
	(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM {table} WHERE component_name = $1::text AND job_name = $2::text
FOR UPDATE;

-- name: probe
-- $1 component name, $2 job name. If there is no row, inserts one that nobody holds. If the snapshot of
-- the transaction is older than the row, the transaction fails.
INSERT INTO {table} (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, '', $2::text, '', TRUE, 'UNLOCKED', '0001-01-01 00:00:00+00')
ON CONFLICT (component_name, job_name) DO NOTHING;

-- name: list
-- The answer is the names and the row of every lock.
SELECT coalesce(component_name::text, ''), coalesce(job_name::text, ''),
	coalesce(component_id::text, ''), coalesce(job_id::text, ''), coalesce(enabled, TRUE),
	coalesce(status::text, 'UNLOCKED') <> 'UNLOCKED',
	(extract(epoch FROM least(greatest(coalesce(lock_time, '0001-01-01 00:00:00+00'),
		'0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00')) * 1000000)::bigint,
	(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM {table} ORDER BY component_name, job_name;

-- name: hides
-- The answer is whether row-level security may hide rows of the table from this role.
SELECT row_security_active('{table}'::regclass::oid);

-- name: problems
-- The answer is a row for each thing that is wrong: what it is and what to do.
-- The table is the first one of its name on the search path.
WITH this_table AS (
	SELECT c.oid, c.relname, n.nspname, c.relrowsecurity
	FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
	WHERE c.oid = '{table}'::regclass)
SELECT format('the column %s has the type %s: make it %s', want.name,
	coalesce(pg_catalog.format_type(a.atttypid, a.atttypmod), 'of no column'), want.type)
FROM (VALUES ('component_name', 'S', 'TEXT'), ('component_id', 'S', 'TEXT'), ('job_name', 'S', 'TEXT'),
	('job_id', 'S', 'TEXT'), ('enabled', 'B', 'BOOL'), ('status', 'SE', 'TEXT'),
	('lock_time', 'D', 'TIMESTAMPTZ')) AS want (name, categories, type)
CROSS JOIN this_table AS c
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = want.name AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE t.oid IS NULL OR position(t.typcategory::text IN want.categories) = 0
	OR (want.name = 'lock_time' AND (coalesce(nullif(t.typbasetype, 0), t.oid) <> 'timestamptz'::regtype
		OR a.atttypmod BETWEEN 0 AND 5))
UNION ALL
SELECT format('the column %s pads its values with blanks (%s): make it TEXT', a.attname,
	pg_catalog.format_type(a.atttypid, a.atttypmod))
FROM this_table AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.atttypid = 'bpchar'::regtype
UNION ALL
SELECT format('the columns are (%s), not the seven in the order of the documentation: the package of 2018 '
	|| 'reads them in that order', string_agg(a.attname, ', ' ORDER BY a.attnum))
FROM this_table AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
HAVING string_agg(a.attname, ' ' ORDER BY a.attnum)
	<> 'component_name component_id job_name job_id enabled status lock_time'
UNION ALL
SELECT format('the table %I.%I has no primary key or unique index on (component_name, job_name): '
	|| 'two callers can insert the same lock. Add it', c.nspname, c.relname)
FROM this_table AS c
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique
	AND i.indpred IS NULL AND i.indisvalid AND i.indnkeyatts = 2
	AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_catalog.pg_attribute AS a
		WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)) = ARRAY['component_name', 'job_name'])
UNION ALL
SELECT format('row-level security is active on the table %I.%I for the role %I: it may hide rows. '
	|| 'Disable it, or give the role BYPASSRLS', c.nspname, c.relname, current_user)
FROM this_table AS c WHERE row_security_active(c.oid)
UNION ALL
SELECT format('there is a second table of this name, %I.%I, on the search path: a session with another '
	|| 'search_path would use that one. Set Options.Schema, or drop one of the two', n.nspname, o.relname)
FROM this_table AS c JOIN pg_catalog.pg_class AS o ON o.relname = c.relname AND o.oid <> c.oid
	AND o.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.relnamespace AND n.nspname = ANY (current_schemas(FALSE))
UNION ALL
SELECT format('a new table would go to the schema %I, in front of %I, which has the table: '
	|| 'set Options.Schema', current_schema(), c.nspname)
FROM this_table AS c WHERE current_schema() <> c.nspname AND c.nspname = ANY (current_schemas(FALSE))
UNION ALL
SELECT format('the encoding of the database is %s: names and IDs that it cannot hold fail. Use UTF8',
	current_setting('server_encoding'))
WHERE current_setting('server_encoding') <> 'UTF8'
UNION ALL
SELECT format('the session can only read (transaction_read_only is %s): use the primary, or a role that may write',
	current_setting('transaction_read_only'))
WHERE current_setting('transaction_read_only') <> 'off'
UNION ALL
SELECT format('the role %I may not %s the table: GRANT it', current_user, want.privilege)
FROM this_table AS c CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE')) AS want (privilege)
WHERE NOT has_table_privilege(c.oid, want.privilege);
