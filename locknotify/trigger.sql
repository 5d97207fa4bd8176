CREATE OR REPLACE FUNCTION lock_released() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	payload text := json_build_object('component', OLD.component_name, 'job', OLD.job_name)::text;
BEGIN
	PERFORM pg_notify('lock_released', CASE WHEN octet_length(payload) < 8000 THEN payload ELSE '' END);
	RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS lock_released ON {table};
CREATE TRIGGER lock_released AFTER UPDATE ON {table} FOR EACH ROW
	WHEN (OLD.status <> 'UNLOCKED' AND NEW.status = 'UNLOCKED' OR NOT OLD.enabled AND NEW.enabled)
	EXECUTE FUNCTION lock_released();
