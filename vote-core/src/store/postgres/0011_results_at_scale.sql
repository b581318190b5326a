-- Time of the last change of a row. For rows from before, that of this migration. A worker that does not know this column
-- yet writes it only in new rows.
ALTER TABLE tally ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
-- Which polls there are seals of, without reading a row for each queue and partition.
CREATE INDEX seals_poll ON seals (poll);
-- The rows of the ledger with quarantined votes: few, and compared with the quarantine again and again.
CREATE INDEX ledger_quarantined ON ledger (partition) WHERE quarantined <> 0;
