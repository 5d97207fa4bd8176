-- create
CREATE TABLE IF NOT EXISTS locks (
	component_name TEXT,
	component_id TEXT,
	job_name TEXT,
	job_id TEXT,
	enabled BOOL,
	status TEXT,
	lock_time TIMESTAMPTZ,
	PRIMARY KEY (component_name, job_name));

-- take
INSERT INTO locks AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, $2::text, $3::text, $4::text, TRUE, 'LOCKED', clock_timestamp())
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')
WHERE l.enabled IS NOT FALSE AND (coalesce(l.status, 'UNLOCKED') = 'UNLOCKED'
	OR clock_timestamp() > coalesce(l.lock_time, '0001-01-01 00:00:00+00:00') + $5::text::interval)
RETURNING lock_time, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE;

-- takeOnce
INSERT INTO locks AS l (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1::text, $2::text, $3::text, $4::text, TRUE, 'LOCKED', clock_timestamp())
ON CONFLICT (component_name, job_name) DO UPDATE SET
	component_id = excluded.component_id, job_id = excluded.job_id, enabled = TRUE, status = 'LOCKED',
	lock_time = greatest(clock_timestamp(), l.lock_time + interval '1 microsecond')
WHERE l.enabled IS NOT FALSE AND CASE WHEN coalesce(l.status, 'UNLOCKED') = 'UNLOCKED'
	THEN ($6::text IS NULL OR octet_length(coalesce(l.job_id, '')) <> octet_length($4::text) OR l.job_id < $4::text)
		AND ($7::text IS NULL OR clock_timestamp() > coalesce(l.lock_time, '0001-01-01 00:00:00+00:00') + $7::text::interval)
	ELSE ($6::text IS NULL OR octet_length(coalesce(l.job_id, '')) <> octet_length($4::text) OR l.job_id <= $4::text)
		AND clock_timestamp() > coalesce(l.lock_time, '0001-01-01 00:00:00+00:00') + $5::text::interval END
RETURNING lock_time, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE;

-- free
UPDATE locks SET status = 'UNLOCKED', enabled = coalesce(enabled, TRUE),
	lock_time = CASE WHEN lock_time IS NULL THEN '0001-01-01 00:00:00+00:00' ELSE lock_time END
WHERE component_name = $1::text AND component_id = $2::text AND job_name = $3::text AND job_id = $4::text AND status <> 'UNLOCKED'
RETURNING lock_time, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE;

-- release
UPDATE locks SET status = 'UNLOCKED', enabled = coalesce(enabled, TRUE),
	lock_time = CASE WHEN lock_time IS NULL THEN '0001-01-01 00:00:00+00:00' ELSE lock_time END
WHERE component_name = $1::text AND component_id = $2::text AND job_name = $3::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND lock_time BETWEEN timestamptz '1970-01-01 00:00:00+00:00' + $5::text::interval
	AND timestamptz '1970-01-01 00:00:00+00:00' + $6::text::interval
RETURNING lock_time, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE;

-- renew
UPDATE locks SET lock_time = greatest(clock_timestamp(), lock_time + interval '1 microsecond')
WHERE component_name = $1::text AND component_id = $2::text AND job_name = $3::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND lock_time BETWEEN timestamptz '1970-01-01 00:00:00+00:00' + $5::text::interval
	AND timestamptz '1970-01-01 00:00:00+00:00' + $6::text::interval
	AND ($7::text IS NULL OR clock_timestamp() <= lock_time + $7::text::interval)
RETURNING lock_time, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE;

-- check
UPDATE locks SET lock_time = lock_time
WHERE component_name = $1::text AND component_id = $2::text AND job_name = $3::text AND job_id = $4::text AND status <> 'UNLOCKED'
	AND lock_time BETWEEN timestamptz '1970-01-01 00:00:00+00:00' + $5::text::interval
	AND timestamptz '1970-01-01 00:00:00+00:00' + $6::text::interval
RETURNING TRUE;

-- set
INSERT INTO locks (component_name, component_id, job_name, job_id, enabled, status, lock_time)
VALUES ($1, '', $2, '', $3, 'UNLOCKED', '0001-01-01 00:00:00+00:00')
ON CONFLICT (component_name, job_name) DO UPDATE SET enabled = excluded.enabled;

-- look
SELECT NULL, component_id, job_id, enabled, status, lock_time, clock_timestamp(), TRUE
FROM locks WHERE component_name = $1::text AND job_name = $2::text;

-- list
SELECT component_name, job_name, NULL, component_id, job_id, enabled, status, lock_time, clock_timestamp(), FALSE
FROM locks ORDER BY component_name, job_name;

