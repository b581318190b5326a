-- Time of the last change of a row, in microseconds since 1970. For rows from before, that of this migration.
ALTER TABLE tally ADD COLUMN changed_at INTEGER NOT NULL DEFAULT 0;
UPDATE tally SET changed_at = unixepoch() * 1000000;
