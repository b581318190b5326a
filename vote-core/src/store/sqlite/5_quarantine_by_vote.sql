-- Votes are quarantined one by one, and the other votes of their frame are counted. A new table, since what is added to one
-- comes behind the frame, where SQLite finds it only by walking through all of the frame.
CREATE TABLE quarantine_5 (
    queue        BLOB    NOT NULL,
    partition    INTEGER NOT NULL REFERENCES partitions,
    position     BLOB    NOT NULL,
    poll         TEXT    NOT NULL,
    -- How many votes are quarantined.
    votes        INTEGER NOT NULL,
    -- Their indices in the frame, from 0, as a JSON array. NULL: all of them.
    indices      TEXT,
    -- The number of votes that the queue accounted the frame as.
    accounted    INTEGER NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('held', 'replay', 'counted', 'rejected')),
    awaits_poll  INTEGER NOT NULL,
    set_aside_at INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    frame        BLOB    NOT NULL,
    PRIMARY KEY (queue, partition, position),
    CHECK (votes = coalesce(json_array_length(indices), accounted))
) STRICT;
INSERT INTO quarantine_5
    (queue, partition, position, poll, votes, accounted, state, awaits_poll, set_aside_at, reason, frame)
SELECT queue, partition, position, poll, votes, votes, state, awaits_poll, set_aside_at, reason, frame FROM quarantine;
DROP TABLE quarantine;
ALTER TABLE quarantine_5 RENAME TO quarantine;

-- What lanes ask for again and again.
CREATE INDEX quarantine_again ON quarantine (partition, queue, position)
    WHERE state = 'replay' OR (state = 'held' AND awaits_poll);
