-- The kind of a reason, so that nothing depends on its sentence, and the reason of an operator who rejected votes, which
-- stood behind that sentence. A new table, since what is added to one comes behind the frame, where SQLite finds it only
-- by walking through all of the frame.
CREATE TABLE quarantine_7 (
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
    reason_code  TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    -- Why an operator rejected them.
    rejection    TEXT    CHECK (rejection IS NULL OR state = 'rejected'),
    frame        BLOB    NOT NULL,
    PRIMARY KEY (queue, partition, position),
    CHECK (votes = coalesce(json_array_length(indices), accounted))
) STRICT;
INSERT INTO quarantine_7
    (queue, partition, position, poll, votes, indices, accounted, state, awaits_poll, set_aside_at, reason_code, reason,
     rejection, frame)
SELECT queue, partition, position, poll, votes, indices, accounted, state, awaits_poll, set_aside_at,
       -- The sentences of all versions up to this one.
       CASE
           WHEN text = 'poll ' || poll || ' is not registered' THEN 'poll-not-registered'
           WHEN text = 'it came after the count of poll ' || poll || ' was final' THEN 'poll-final'
           WHEN instr(text, 'poll ' || poll || ' has no option ') = 1 THEN 'unknown-option'
           WHEN text LIKE 'vote % is quarantined, and the frame has %' THEN 'damaged-index'
           WHEN text LIKE 'poll: %' THEN 'invalid-poll-name'
           WHEN text LIKE 'frame: checksum differs: %' THEN 'damaged-frame'
           WHEN text LIKE 'frame: frame version % is not known to this build, %' THEN 'unknown-frame-version'
           WHEN text LIKE 'frame: malformed: %' THEN 'malformed-frame'
           WHEN text LIKE 'frame: invalid size of %' THEN 'malformed-frame'
           WHEN text LIKE 'frame: % bytes are no frame: %' THEN 'malformed-frame'
           WHEN text LIKE 'frame: % bytes after the last vote' THEN 'malformed-frame'
           WHEN text LIKE 'frame: % votes % were accounted for' THEN 'wrong-vote-count'
           WHEN text LIKE 'frame: voter % does not belong to partition %' THEN 'wrong-partition'
           ELSE 'unknown'
       END,
       text, iif(rejected_at > 0, substr(reason, rejected_at + length('; rejected: ')), NULL), frame
FROM (SELECT *, iif(rejected_at > 0, substr(reason, 1, rejected_at - 1), reason) AS text
      FROM (SELECT *, iif(state = 'rejected', instr(reason, '; rejected: '), 0) AS rejected_at FROM quarantine));
DROP TABLE quarantine;
ALTER TABLE quarantine_7 RENAME TO quarantine;

-- What lanes ask for again and again.
CREATE INDEX quarantine_again ON quarantine (partition, queue, position)
    WHERE state = 'replay' OR (state = 'held' AND awaits_poll);
