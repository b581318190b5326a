-- The deployment that this store was made for; one row.
CREATE TABLE meta (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    partitions  INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL
) STRICT;

CREATE TABLE polls (
    poll      INTEGER PRIMARY KEY,
    slug      TEXT NOT NULL UNIQUE,
    keep      TEXT NOT NULL,
    voters    TEXT NOT NULL,
    closes_at INTEGER
) STRICT;

-- The number is the place of the option in the poll.
CREATE TABLE options (
    poll   INTEGER NOT NULL REFERENCES polls,
    option INTEGER NOT NULL,
    slug   TEXT    NOT NULL,
    PRIMARY KEY (poll, option),
    UNIQUE (poll, slug)
) STRICT, WITHOUT ROWID;

-- What stands. The rows of a partition are one range of the key, and the key is the last guard against a vote that
-- counts twice. Times are microseconds since 1970.
CREATE TABLE votes (
    poll    INTEGER NOT NULL,
    voter   BLOB    NOT NULL,
    option  INTEGER NOT NULL,
    cast_at INTEGER NOT NULL,
    PRIMARY KEY (poll, voter),
    FOREIGN KEY (poll, option) REFERENCES options
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (
    poll      INTEGER NOT NULL,
    option    INTEGER NOT NULL,
    partition INTEGER NOT NULL REFERENCES partitions,
    n         INTEGER NOT NULL,
    PRIMARY KEY (poll, option, partition),
    FOREIGN KEY (poll, option) REFERENCES options
) STRICT, WITHOUT ROWID;

-- A commit moves the version of its partition by one, and names the one it found.
CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    version   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- How far each queue was read.
CREATE TABLE positions (
    partition INTEGER NOT NULL REFERENCES partitions,
    queue     BLOB    NOT NULL,
    position  BLOB    NOT NULL,
    PRIMARY KEY (partition, queue)
) STRICT, WITHOUT ROWID;

-- What became of the votes that were read. The poll is the name that the queue has, which may be no poll at all.
CREATE TABLE ledger (
    partition   INTEGER NOT NULL REFERENCES partitions,
    queue       BLOB    NOT NULL,
    poll        TEXT    NOT NULL,
    accepted    INTEGER NOT NULL,
    new_voters  INTEGER NOT NULL,
    superseded  INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    PRIMARY KEY (partition, queue, poll)
) STRICT, WITHOUT ROWID;

-- Every queue ever seen, as last reported.
CREATE TABLE queues (
    queue    BLOB    NOT NULL PRIMARY KEY,
    address  TEXT    NOT NULL,
    seen_at  INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    backlog  INTEGER NOT NULL,
    state    TEXT    NOT NULL CHECK (state IN ('active', 'cut'))
) STRICT, WITHOUT ROWID;

-- Frames that could not be counted. With row ids, since a frame may be large.
CREATE TABLE quarantine (
    partition INTEGER NOT NULL REFERENCES partitions,
    queue     BLOB    NOT NULL,
    position  BLOB    NOT NULL,
    poll      TEXT    NOT NULL,
    votes     INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    frame     BLOB    NOT NULL,
    PRIMARY KEY (partition, queue, position)
) STRICT;
