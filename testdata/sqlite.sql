-- create
CREATE TABLE IF NOT EXISTS locks (
	component_name TEXT,
	component_id TEXT,
	job_name TEXT,
	job_id TEXT,
	enabled BOOL,
	status TEXT,
	lock_time TIMESTAMP,
	PRIMARY KEY (component_name, job_name));

-- take
WITH term(next) AS (
SELECT max(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, coalesce((SELECT (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + 1 FROM locks WHERE component_name = ?1 AND job_name = ?3), 0)))
INSERT INTO locks AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
SELECT ?1, ?2, ?3, ?4, TRUE, 'LOCKED', strftime('%Y-%m-%d %H:%M:%S', next / 1000000, 'unixepoch') || printf('.%06d+00:00', next % 1000000)
FROM term WHERE TRUE
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = excluded.lock_time
WHERE enabled IS NOT FALSE AND (coalesce(status, 'UNLOCKED') = 'UNLOCKED'
	OR CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 > (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + CAST(?5 AS INTEGER))
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE;

-- takeOnce
WITH term(next) AS (
SELECT max(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, coalesce((SELECT (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + 1 FROM locks WHERE component_name = ?1 AND job_name = ?3), 0)))
INSERT INTO locks AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
SELECT ?1, ?2, ?3, ?4, TRUE, 'LOCKED', strftime('%Y-%m-%d %H:%M:%S', next / 1000000, 'unixepoch') || printf('.%06d+00:00', next % 1000000)
FROM term WHERE TRUE
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = excluded.lock_time
WHERE enabled IS NOT FALSE AND CASE WHEN coalesce(status, 'UNLOCKED') = 'UNLOCKED'
	THEN (?6 IS NULL OR length(CAST(coalesce(job_id, '') AS BLOB)) <> length(CAST(?4 AS BLOB)) OR job_id < ?4)
		AND (?7 IS NULL OR CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 > (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + CAST(?7 AS INTEGER))
	ELSE (?6 IS NULL OR length(CAST(coalesce(job_id, '') AS BLOB)) <> length(CAST(?4 AS BLOB)) OR job_id <= ?4)
		AND CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 > (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + CAST(?5 AS INTEGER) END
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE;

-- free
UPDATE locks SET status = 'UNLOCKED', enabled = coalesce(enabled, TRUE),
	lock_time = CASE WHEN lock_time IS NULL THEN '0001-01-01 00:00:00+00:00' ELSE lock_time END
WHERE component_name = ?1 AND component_id = ?2 AND job_name = ?3 AND job_id = ?4 AND status <> 'UNLOCKED'
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE;

-- release
UPDATE locks SET status = 'UNLOCKED', enabled = coalesce(enabled, TRUE),
	lock_time = CASE WHEN lock_time IS NULL THEN '0001-01-01 00:00:00+00:00' ELSE lock_time END
WHERE component_name = ?1 AND component_id = ?2 AND job_name = ?3 AND job_id = ?4 AND status <> 'UNLOCKED'
	AND (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) BETWEEN CAST(?5 AS INTEGER)
	AND CAST(?6 AS INTEGER)
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE;

-- renew
UPDATE locks SET lock_time = (SELECT strftime('%Y-%m-%d %H:%M:%S', next / 1000000, 'unixepoch') || printf('.%06d+00:00', next % 1000000) FROM (SELECT max(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + 1) AS next))
WHERE component_name = ?1 AND component_id = ?2 AND job_name = ?3 AND job_id = ?4 AND status <> 'UNLOCKED'
	AND (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) BETWEEN CAST(?5 AS INTEGER)
	AND CAST(?6 AS INTEGER)
	AND (?7 IS NULL OR CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 <= (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) + CAST(?7 AS INTEGER))
RETURNING (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE;

-- check
UPDATE locks SET lock_time = lock_time
WHERE component_name = ?1 AND component_id = ?2 AND job_name = ?3 AND job_id = ?4 AND status <> 'UNLOCKED'
	AND (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)) BETWEEN CAST(?5 AS INTEGER)
	AND CAST(?6 AS INTEGER)
RETURNING TRUE;

-- set
INSERT INTO locks (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES (?1, '', ?2, '', ?3, 'UNLOCKED', '0001-01-01 00:00:00+00:00')
ON CONFLICT (component_name, job_name) DO UPDATE SET enabled = excluded.enabled;

-- look
SELECT NULL, component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE
FROM locks WHERE component_name = ?1 AND job_name = ?2;

-- list
SELECT component_name, job_name, NULL, component_id, job_id, enabled, status, (SELECT coalesce(unixepoch(substr(t, 1, 19) || substr(t, -6)), unixepoch(substr(t, 1, 19))) * 1000000
	+ CAST(round(CAST('0' || substr(t, 20, 7) AS REAL) * 1000000) AS INTEGER)
	FROM (SELECT coalesce(lock_time, '0001-01-01 00:00:00') AS t)), CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000, FALSE
FROM locks ORDER BY component_name, job_name;

