-- Server that a queue was last seen on, and the worker that reported it.
ALTER TABLE queues ADD COLUMN server text NOT NULL DEFAULT '';
ALTER TABLE queues ADD COLUMN reporter uuid;

-- Version of what workers act on: of polls, their options and closing times, queues, and the polls that queues have
-- dropped. Workers read these again only when it changes. Triggers change it, so that no statement can forget it, also
-- none of an operator. The lock on the row of meta, which lasts until the transaction ends, makes sure that a worker
-- which sees a version also sees every change before it. It is a random number: a counter could have the same value for
-- other contents after a failover to a standby that lacks the last changes.
ALTER TABLE meta ADD COLUMN catalog bigint NOT NULL DEFAULT 0;

CREATE FUNCTION new_catalog_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.meta SET catalog = hashtextextended(gen_random_uuid()::text, 0)', TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;

CREATE TRIGGER new_catalog_version AFTER INSERT OR UPDATE OR DELETE ON polls
    FOR EACH ROW EXECUTE FUNCTION new_catalog_version();
CREATE TRIGGER new_catalog_version AFTER INSERT OR UPDATE OR DELETE ON options
    FOR EACH ROW EXECUTE FUNCTION new_catalog_version();
CREATE TRIGGER new_catalog_version AFTER INSERT OR UPDATE OR DELETE ON reschedules
    FOR EACH ROW EXECUTE FUNCTION new_catalog_version();
CREATE TRIGGER new_catalog_version AFTER INSERT OR UPDATE OR DELETE ON dropped_polls
    FOR EACH ROW EXECUTE FUNCTION new_catalog_version();
CREATE TRIGGER new_catalog_version_on_insert AFTER INSERT OR DELETE ON queues
    FOR EACH ROW EXECUTE FUNCTION new_catalog_version();
-- Not by what each report changes.
CREATE TRIGGER new_catalog_version_on_update AFTER UPDATE ON queues FOR EACH ROW
    WHEN ((OLD.original_id, OLD.address, OLD.server, OLD.reporter, OLD.state, OLD.reason)
          IS DISTINCT FROM (NEW.original_id, NEW.address, NEW.server, NEW.reporter, NEW.state, NEW.reason))
    EXECUTE FUNCTION new_catalog_version();
