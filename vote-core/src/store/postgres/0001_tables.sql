-- A row for each thing that is counted or remembered. Nothing here is hot: every row that a commit changes belongs to
-- one partition, and commits of one partition follow one another.

CREATE TABLE meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    partitions smallint NOT NULL,
    pepper bytea NOT NULL,
    -- Advisory locks are shared by everything in a database: theirs derive from this.
    lock_id uuid NOT NULL DEFAULT gen_random_uuid()
);

CREATE TABLE polls (
    poll smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    keep text NOT NULL CHECK (keep IN ('first', 'last')),
    voters text NOT NULL,
    closes_at timestamptz
);

CREATE TABLE options (
    poll smallint NOT NULL REFERENCES polls,
    option smallint NOT NULL,
    slug text NOT NULL,
    PRIMARY KEY (poll, option),
    UNIQUE (poll, slug)
);

-- No foreign keys here: they would cost a look-up for each vote, and a lane takes the numbers from those tables.
CREATE TABLE votes (
    poll smallint NOT NULL,
    voter uuid NOT NULL,
    option smallint NOT NULL,
    cast_at timestamptz NOT NULL,
    PRIMARY KEY (poll, voter)
);

CREATE TABLE tally (
    poll smallint NOT NULL,
    option smallint NOT NULL,
    partition smallint NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (poll, option, partition)
);

CREATE TABLE partitions (
    partition smallint PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0
);

CREATE TABLE checkpoints (
    queue uuid NOT NULL,
    partition smallint NOT NULL,
    position bytea NOT NULL,
    PRIMARY KEY (queue, partition)
);

-- accepted = new_voters + superseded + quarantined, in every row, or votes were lost.
CREATE TABLE ledger (
    queue uuid NOT NULL,
    partition smallint NOT NULL,
    poll text NOT NULL,
    accepted bigint NOT NULL,
    new_voters bigint NOT NULL,
    superseded bigint NOT NULL,
    quarantined bigint NOT NULL,
    PRIMARY KEY (queue, partition, poll)
);

CREATE TABLE queues (
    queue uuid PRIMARY KEY,
    address text NOT NULL,
    seen_at timestamptz NOT NULL,
    accepted bigint NOT NULL,
    backlog bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'cut'))
);

CREATE TABLE quarantine (
    queue uuid NOT NULL,
    partition smallint NOT NULL,
    position bytea NOT NULL,
    poll text NOT NULL,
    votes bigint NOT NULL,
    reason text NOT NULL,
    frame bytea NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, partition, position)
);
