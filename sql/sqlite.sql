-- The statements for SQLite 3.42 and later. {table} is the name of the table.
--
-- Arguments and answers are those of postgres.sql, with casts that SQLite needs. A read by key comes
-- first, which settles refusals. The statement that writes decides alone.
-- SQLite has no type for times. A lock_time is text, in UTC, always of one length, such as
-- 2026-11-25 03:00:00.000000+00:00. The declared type lets drivers read it as a time. The clock has
-- milliseconds. A lock_time that is no time is read as the year 1; its lock never expires.

-- name: create
CREATE TABLE IF NOT EXISTS {table} (
	component_name TEXT,
	component_id TEXT,
	job_name TEXT,
	job_id TEXT,
	enabled BOOL,
	status TEXT,
	lock_time TIMESTAMP,
	PRIMARY KEY (component_name, job_name));

-- name: peek
-- $1 component name, $2 job name, $3 job ID, $4 TTL, $5 the earliest time for the tick, $6 the spacing.
-- The answer is one row: the row of the lock and the reason for a refusal, or NULL.
SELECT coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED', coalesce(time, -62135596800000000), now,
	CASE
		WHEN NOT enabled THEN 'disabled'
		WHEN now < CAST(?5 AS INTEGER) THEN 'ahead'
		WHEN ?5 IS NOT NULL AND job_id LIKE '____-__-__T__:__:__Z' AND job_id > ?3 THEN 'already'
		WHEN ?5 IS NOT NULL AND job_id = ?3 AND coalesce(status, 'UNLOCKED') = 'UNLOCKED' THEN 'already'
		WHEN status <> 'UNLOCKED' AND (time < now - CAST(?4 AS INTEGER)) IS NOT TRUE THEN 'held'
		WHEN coalesce(status, 'UNLOCKED') = 'UNLOCKED' AND time >= now - CAST(?6 AS INTEGER) THEN 'already'
		END
FROM (SELECT l.*, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(l.lock_time, '0001-01-01 00:00:00') AS t)) AS time,
	CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 AS now
	FROM (SELECT 1) AS one LEFT JOIN {table} AS l ON l.component_name = ?1 AND l.job_name = ?2);

-- name: acquire
-- $1 to $7 as in postgres.sql. The answer is the lock_time that was written, or no row.
-- The statement holds the database's write lock from its beginning, so the row that was judged is the row
-- that is written.
WITH this_row AS (
	SELECT *, max(now, coalesce(time + 1, 0)) AS next,
	CASE
		WHEN NOT enabled THEN 'disabled'
		WHEN now < CAST(?6 AS INTEGER) THEN 'ahead'
		WHEN ?6 IS NOT NULL AND job_id LIKE '____-__-__T__:__:__Z' AND job_id > ?4 THEN 'already'
		WHEN ?6 IS NOT NULL AND job_id = ?4 AND coalesce(status, 'UNLOCKED') = 'UNLOCKED' THEN 'already'
		WHEN status <> 'UNLOCKED' AND (time < now - CAST(?5 AS INTEGER)) IS NOT TRUE THEN 'held'
		WHEN coalesce(status, 'UNLOCKED') = 'UNLOCKED' AND time >= now - CAST(?7 AS INTEGER) THEN 'already'
		END AS refusal
	FROM (SELECT l.*, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(l.lock_time, '0001-01-01 00:00:00') AS t)) AS time,
	CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 AS now
	FROM (SELECT 1) AS one LEFT JOIN {table} AS l ON l.component_name = ?1 AND l.job_name = ?3)
)
INSERT INTO {table} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
SELECT ?1, ?2, ?3, ?4, TRUE, 'LOCKED', strftime('%Y-%m-%d %H:%M:%S', next / 1000000, 'unixepoch')
		|| printf('.%06d+00:00', next % 1000000)
FROM this_row WHERE refusal IS NULL
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = excluded.lock_time
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
	unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t));

-- name: renew
UPDATE {table} SET lock_time = (SELECT strftime('%Y-%m-%d %H:%M:%S', next / 1000000, 'unixepoch')
		|| printf('.%06d+00:00', next % 1000000)
	FROM (SELECT max(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000,
	(SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + 1) AS next))
WHERE component_name = ?1 AND job_name = ?3
	AND component_id = ?2 AND job_id = ?4 AND status <> 'UNLOCKED'
	AND (?5 IS NULL OR (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) >= CAST(?5 AS INTEGER))
	AND (?6 IS NULL OR (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) <= CAST(?6 AS INTEGER))
	AND (?7 IS NULL OR (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t))
		>= CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 - CAST(?7 AS INTEGER))
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
	unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), coalesce(enabled, TRUE);

-- name: release
UPDATE {table} SET status = 'UNLOCKED', job_id = ?7, enabled = coalesce(enabled, TRUE),
	lock_time = coalesce(lock_time, '0001-01-01 00:00:00.000000+00:00')
WHERE component_name = ?1 AND job_name = ?3
	AND component_id = ?2 AND job_id = ?4 AND status <> 'UNLOCKED'
	AND (?5 IS NULL OR (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) >= CAST(?5 AS INTEGER))
	AND (?6 IS NULL OR (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) <= CAST(?6 AS INTEGER))
RETURNING TRUE;

-- name: enable
INSERT INTO {table} AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES (?1, '', ?2, '', ?3 = 'true', 'UNLOCKED', '0001-01-01 00:00:00.000000+00:00')
ON CONFLICT (component_name, job_name) DO UPDATE SET enabled = excluded.enabled;

-- name: delete
DELETE FROM {table}
WHERE component_name = ?1 AND job_name = ?2 AND coalesce(status, 'UNLOCKED') = 'UNLOCKED'
RETURNING TRUE;

-- name: get
-- The answer is one row: the row of the lock, and whether there is one.
SELECT coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED', coalesce(time, -62135596800000000), now,
	component_name IS NOT NULL
FROM (SELECT l.*, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(l.lock_time, '0001-01-01 00:00:00') AS t)) AS time,
	CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 AS now
	FROM (SELECT 1) AS one LEFT JOIN {table} AS l ON l.component_name = ?1 AND l.job_name = ?2);

-- name: fence
-- SQLite locks the database for a transaction that writes.
UPDATE {table} SET enabled = enabled
WHERE component_name = ?1 AND job_name = ?2
RETURNING coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED',
	coalesce((SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), -62135596800000000),
	CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000;

-- name: probe
INSERT INTO {table} (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES (?1, '', ?2, '', TRUE, 'UNLOCKED', '0001-01-01 00:00:00.000000+00:00')
ON CONFLICT (component_name, job_name) DO NOTHING;

-- name: list
SELECT coalesce(component_name, ''), coalesce(job_name, ''),
	coalesce(component_id, ''), coalesce(job_id, ''), coalesce(enabled, TRUE),
	coalesce(status, 'UNLOCKED') <> 'UNLOCKED', coalesce(time, -62135596800000000), now
FROM (SELECT *, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)),
		unixepoch(substr(t, 1, 19))) * 1000000
		+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
		FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) AS time,
	CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 AS now
	FROM {table}) ORDER BY component_name, job_name;

-- name: problems
-- The answer is a row for each thing that is wrong: what it is and what to do. If the table is missing,
-- all is wrong.
SELECT printf('the column %s is missing: create the table as documented', want.name)
FROM (SELECT 'component_name' AS name UNION ALL SELECT 'component_id' UNION ALL SELECT 'job_name'
	UNION ALL SELECT 'job_id' UNION ALL SELECT 'enabled' UNION ALL SELECT 'status' UNION ALL SELECT 'lock_time') AS want
WHERE NOT EXISTS (SELECT 1 FROM pragma_table_info('{table}') AS c WHERE c.name = want.name)
UNION ALL
SELECT printf('the column lock_time has the type %s: make it TIMESTAMP', c.type)
FROM pragma_table_info('{table}') AS c WHERE c.name = 'lock_time' AND upper(c.type) NOT IN ('TIMESTAMP', 'DATETIME')
UNION ALL
SELECT printf('the column %s has the type %s: make it TEXT', c.name, c.type)
FROM pragma_table_info('{table}') AS c
WHERE c.name IN ('component_name', 'component_id', 'job_name', 'job_id', 'status')
	AND upper(c.type) NOT LIKE '%CHAR%' AND upper(c.type) NOT LIKE '%TEXT%'
UNION ALL
SELECT 'the table has no primary key on (component_name, job_name): two callers can insert the same lock. Add it'
WHERE (SELECT group_concat(c.name) FROM (SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY name) AS c)
	IS NOT 'component_name,job_name'
UNION ALL
SELECT 'the database is in memory or a temporary file: each connection may have one of its own. Use a file'
FROM pragma_database_list AS d WHERE d.name = 'main' AND d.file = '';
