CREATE TABLE IF NOT EXISTS locks (
	component_name TEXT,
	component_id TEXT,
	job_name TEXT,
	job_id TEXT,
	enabled BOOL,
	status TEXT,
	lock_time TIMESTAMPTZ,
	PRIMARY KEY (component_name, job_name))
