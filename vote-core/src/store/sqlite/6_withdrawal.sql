-- Polls can be withdrawn before anybody voted, and their names registered with another definition. The row of an earlier
-- definition stays, under the name of its poll with '#' and its number behind it.
ALTER TABLE polls ADD COLUMN withdrawn_at INTEGER;
ALTER TABLE polls ADD COLUMN withdrawn_reason TEXT;

-- Queues that take no votes for a poll any more that was withdrawn then.
CREATE TABLE given_up (
    queue        BLOB    NOT NULL,
    poll         INTEGER NOT NULL REFERENCES polls,
    withdrawn_at INTEGER NOT NULL,
    PRIMARY KEY (queue, poll, withdrawn_at)
) STRICT, WITHOUT ROWID;
