-- The ballot boxes of this file. The one with the highest number is the current one; the others were replaced, and
-- keep what they held under their own id.
CREATE TABLE boxes (
    box         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    version     INTEGER NOT NULL,
    partitions  INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,
    registered  INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The log. Without AUTOINCREMENT, positions would start again after everything was trimmed. One sequence serves all
-- partitions: positions only have to rise within one.
CREATE TABLE frames (
    position  INTEGER PRIMARY KEY AUTOINCREMENT,
    box       INTEGER NOT NULL REFERENCES boxes,
    partition INTEGER NOT NULL,
    poll      TEXT    NOT NULL,
    votes     INTEGER NOT NULL,
    frame     BLOB    NOT NULL
) STRICT;

-- The position is part of every index, so this is a partition in the order of its log.
CREATE INDEX frames_of_partition ON frames (box, partition);

-- Votes ever accepted, and the last position, which must be known even when its entry is gone.
CREATE TABLE accepted (
    box       INTEGER NOT NULL REFERENCES boxes,
    partition INTEGER NOT NULL,
    poll      TEXT    NOT NULL,
    votes     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    PRIMARY KEY (box, partition, poll)
) STRICT, WITHOUT ROWID;

-- Polls that take no more votes.
CREATE TABLE sealed (
    box  INTEGER NOT NULL REFERENCES boxes,
    poll TEXT    NOT NULL,
    PRIMARY KEY (box, poll)
) STRICT, WITHOUT ROWID;
