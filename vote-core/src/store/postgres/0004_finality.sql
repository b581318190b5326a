-- One clock, closing times that move by command only, and finality a partition at a time.

-- Raised whenever a queue is recorded for the first time or diverges, and when a seal says more than before. What was
-- recorded as complete up to an older one has to be looked at again.
ALTER TABLE meta ADD revision bigint NOT NULL DEFAULT 1;

-- Partitions that hold all votes of a closed poll that can come, as of a revision.
CREATE TABLE completions (
    poll smallint NOT NULL,
    partition smallint NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (poll, partition)
);

CREATE TABLE reschedules (
    reschedule bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    poll smallint NOT NULL REFERENCES polls,
    at timestamptz NOT NULL,
    "from" timestamptz,
    "to" timestamptz,
    reason text NOT NULL
);

-- Workers that gave a sign of life, and the queues that they can't reach while others can.
CREATE TABLE workers (
    worker uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL,
    lanes integer NOT NULL,
    unreached uuid[] NOT NULL
);
