-- One clock, closing times that move by command only, and finality a partition at a time.

-- Raised whenever a queue is recorded for the first time or diverges, and when a seal says more than before. What was
-- recorded as complete up to an older one has to be looked at again.
ALTER TABLE meta ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;

-- Partitions that hold all votes of a closed poll that can come, as of a revision.
CREATE TABLE completions (
    poll      INTEGER NOT NULL REFERENCES polls,
    partition INTEGER NOT NULL REFERENCES partitions,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (poll, partition)
) STRICT, WITHOUT ROWID;

-- Closing times that somebody moved; times are microseconds since 1970.
CREATE TABLE reschedules (
    reschedule INTEGER PRIMARY KEY,
    poll       INTEGER NOT NULL REFERENCES polls,
    at         INTEGER NOT NULL,
    old        INTEGER,
    new        INTEGER,
    reason     TEXT    NOT NULL
) STRICT;

-- Workers that gave a sign of life, and the queues that they can't reach while others can: a list of hex texts.
CREATE TABLE workers (
    worker    BLOB    NOT NULL PRIMARY KEY,
    seen_at   INTEGER NOT NULL,
    lanes     INTEGER NOT NULL,
    unreached TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
