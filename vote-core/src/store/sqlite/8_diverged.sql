-- A queue whose content contradicts what was read or acknowledged has diverged: the word `cut` said that of one cause.
-- SQLite can't change the CHECK of a table, hence a new one.
CREATE TABLE queues_8 (
    queue           BLOB    NOT NULL PRIMARY KEY,
    remains_of      BLOB,
    address         TEXT    NOT NULL,
    seen_at         INTEGER NOT NULL,
    queued_complete INTEGER NOT NULL,
    backlog         INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('active', 'diverged', 'retired')),
    reason          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO queues_8 (queue, remains_of, address, seen_at, queued_complete, backlog, state, reason)
SELECT queue, remains_of, address, seen_at, queued_complete, backlog, iif(state = 'cut', 'diverged', state), reason
FROM queues;
DROP TABLE queues;
ALTER TABLE queues_8 RENAME TO queues;
