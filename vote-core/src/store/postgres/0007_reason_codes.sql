-- The kind of a reason, so that nothing depends on its sentence, and the reason of an operator who rejected votes, which
-- stood behind that sentence.
--
-- A worker that does not know these columns yet writes only the sentence, which is the kind 'unknown', and adds what an
-- operator says to it.

ALTER TABLE quarantine
    ADD reason_code text NOT NULL DEFAULT 'unknown',
    ADD rejection text,
    ADD CHECK (rejection IS NULL OR state = 'rejected');

UPDATE quarantine
SET rejection = substr(reason, strpos(reason, '; rejected: ') + length('; rejected: ')),
    reason = left(reason, strpos(reason, '; rejected: ') - 1)
WHERE state = 'rejected' AND strpos(reason, '; rejected: ') > 0;

-- The sentences of all versions up to this one.
UPDATE quarantine SET reason_code = CASE
    WHEN reason = 'poll ' || poll || ' is not registered' THEN 'poll-not-registered'
    WHEN reason = 'it came after the count of poll ' || poll || ' was final' THEN 'poll-final'
    WHEN starts_with(reason, 'poll ' || poll || ' has no option ') THEN 'unknown-option'
    WHEN reason LIKE 'vote % is quarantined, and the frame has %' THEN 'damaged-index'
    WHEN reason LIKE 'poll: %' THEN 'invalid-poll-name'
    WHEN reason LIKE 'frame: checksum differs: %' THEN 'damaged-frame'
    WHEN reason LIKE 'frame: frame version % is not known to this build, %' THEN 'unknown-frame-version'
    WHEN reason LIKE 'frame: malformed: %' THEN 'malformed-frame'
    WHEN reason LIKE 'frame: invalid size of %' THEN 'malformed-frame'
    WHEN reason LIKE 'frame: % bytes are no frame: %' THEN 'malformed-frame'
    WHEN reason LIKE 'frame: % bytes after the last vote' THEN 'malformed-frame'
    WHEN reason LIKE 'frame: % votes % were accounted for' THEN 'wrong-vote-count'
    WHEN reason LIKE 'frame: voter % does not belong to partition %' THEN 'wrong-partition'
    ELSE 'unknown'
END;
