-- Tables, columns and states are called what the code calls them, and what they are called in a store on Postgres.
ALTER TABLE queues RENAME COLUMN remains_of TO original_id;
ALTER TABLE given_up RENAME TO dropped_polls;
ALTER TABLE positions RENAME TO checkpoints;

-- SQLite can't change the CHECK of a table, hence a new one. The frame, which may be large, comes last: behind it SQLite
-- finds a column only by walking through all of the frame.
CREATE TABLE quarantine_9 (
    queue          BLOB    NOT NULL,
    partition      INTEGER NOT NULL REFERENCES partitions,
    position       BLOB    NOT NULL,
    poll           TEXT    NOT NULL,
    -- How many votes are quarantined.
    votes          INTEGER NOT NULL,
    -- Their indices in the frame, from 0, as a JSON array. NULL: all of them.
    indices        TEXT,
    -- The number of votes that the queue accounted the frame as.
    accounted      INTEGER NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('quarantined', 'replay', 'counted', 'rejected')),
    awaits_poll    INTEGER NOT NULL,
    quarantined_at INTEGER NOT NULL,
    reason_code    TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    -- Why an operator rejected them.
    rejection      TEXT    CHECK (rejection IS NULL OR state = 'rejected'),
    frame          BLOB    NOT NULL,
    PRIMARY KEY (queue, partition, position),
    CHECK (votes = coalesce(json_array_length(indices), accounted))
) STRICT;
INSERT INTO quarantine_9
    (queue, partition, position, poll, votes, indices, accounted, state, awaits_poll, quarantined_at, reason_code,
     reason, rejection, frame)
SELECT queue, partition, position, poll, votes, indices, accounted, iif(state = 'held', 'quarantined', state),
       awaits_poll, set_aside_at, reason_code, reason, rejection, frame
FROM quarantine;
DROP TABLE quarantine;
ALTER TABLE quarantine_9 RENAME TO quarantine;

-- What lanes ask for again and again.
CREATE INDEX quarantine_again ON quarantine (partition, queue, position)
    WHERE state = 'replay' OR (state = 'quarantined' AND awaits_poll);
