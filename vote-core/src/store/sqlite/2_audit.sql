-- What an audit needs beside: closed and final polls, seals, queues in detail, and decisions about quarantine.

ALTER TABLE polls ADD COLUMN closed_at INTEGER;
-- What is final was closed.
ALTER TABLE polls ADD COLUMN final_at INTEGER CHECK (final_at IS NULL OR closed_at IS NOT NULL);

-- The queues, and the remains of queues. SQLite can't change the CHECK of a table, hence a new one.
CREATE TABLE queues_2 (
    queue           BLOB    NOT NULL PRIMARY KEY,
    remains_of      BLOB,
    address         TEXT    NOT NULL,
    seen_at         INTEGER NOT NULL,
    queued_complete INTEGER NOT NULL,
    backlog         INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('active', 'cut', 'retired')),
    reason          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
-- A queue that is cut reports no more, so its total is kept in words.
INSERT INTO queues_2 (queue, address, seen_at, queued_complete, backlog, state, reason)
SELECT queue, address, seen_at, 0, backlog, state,
       CASE state
           WHEN 'cut' THEN 'the reason was not kept; it had reported ' || accepted || ' accepted votes of all polls'
           ELSE ''
       END
FROM queues;

-- What a queue counts poll by poll. NULL: it did not say.
CREATE TABLE queue_polls (
    queue    BLOB NOT NULL,
    poll     TEXT NOT NULL,
    accepted INTEGER,
    queued   INTEGER,
    PRIMARY KEY (queue, poll)
) STRICT, WITHOUT ROWID;
-- There was a total of all polls. What was read of it is known poll by poll; the rest comes with the next report.
INSERT INTO queue_polls (queue, poll, accepted)
SELECT queue, poll, sum(accepted) FROM ledger WHERE queue IN (SELECT queue FROM queues) GROUP BY queue, poll;

DROP TABLE queues;
ALTER TABLE queues_2 RENAME TO queues;

-- The last position of each partition of a queue.
CREATE TABLE queue_ends (
    queue     BLOB    NOT NULL,
    partition INTEGER NOT NULL,
    position  BLOB    NOT NULL,
    PRIMARY KEY (queue, partition)
) STRICT, WITHOUT ROWID;

-- What a queue held of a poll when it was sealed in it.
CREATE TABLE seals (
    queue     BLOB    NOT NULL,
    poll      TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    position  BLOB    NOT NULL,
    accepted  INTEGER NOT NULL,
    PRIMARY KEY (queue, poll, partition)
) STRICT, WITHOUT ROWID;

-- Frames that were set aside, in the order in which they are listed. What is added to a table comes last, and behind a
-- large frame SQLite finds a column only by walking through all of the frame: hence a new one here, too.
CREATE TABLE quarantine_2 (
    queue        BLOB    NOT NULL,
    partition    INTEGER NOT NULL REFERENCES partitions,
    position     BLOB    NOT NULL,
    poll         TEXT    NOT NULL,
    votes        INTEGER NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('held', 'replay', 'counted', 'rejected')),
    awaits_poll  INTEGER NOT NULL,
    set_aside_at INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    frame        BLOB    NOT NULL,
    PRIMARY KEY (queue, partition, position)
) STRICT;
-- It was not noted when; now is the latest that it can have been.
INSERT INTO quarantine_2 (queue, partition, position, poll, votes, state, awaits_poll, set_aside_at, reason, frame)
SELECT queue, partition, position, poll, votes, 'held', reason = 'poll ' || poll || ' is not registered',
       unixepoch() * 1000000, reason, frame
FROM quarantine;
DROP TABLE quarantine;
ALTER TABLE quarantine_2 RENAME TO quarantine;

-- What lanes ask for again and again.
CREATE INDEX quarantine_again ON quarantine (partition, queue, position)
    WHERE state = 'replay' OR (state = 'held' AND awaits_poll);
