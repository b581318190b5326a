-- Time of the latest withdrawal that was undone, since a queue may have dropped the poll for it.
ALTER TABLE polls ADD COLUMN undone_withdrawal INTEGER;
