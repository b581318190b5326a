-- Closing polls, what queues reported in detail, seals, and decisions about quarantine.

ALTER TABLE polls
    ADD closed_at timestamptz,
    ADD final_at timestamptz,
    -- What is final was closed.
    ADD CHECK (final_at IS NULL OR closed_at IS NOT NULL);

ALTER TABLE queues
    DROP CONSTRAINT queues_state_check,
    ADD CONSTRAINT queues_state_check CHECK (state IN ('active', 'cut', 'retired')),
    ADD reason text NOT NULL DEFAULT '',
    ADD remains_of uuid,
    -- Votes by poll. What was reported before was a total only; workers report again within seconds.
    DROP accepted,
    ADD accepted jsonb NOT NULL DEFAULT '{}',
    ADD queued jsonb NOT NULL DEFAULT '{}',
    ADD queued_complete boolean NOT NULL DEFAULT true,
    -- The last position of each partition.
    ADD ends bytea[] NOT NULL DEFAULT '{}';

-- What a queue held of a poll when it was sealed in it.
CREATE TABLE seals (
    queue uuid NOT NULL,
    poll text NOT NULL,
    partition smallint NOT NULL,
    position bytea NOT NULL,
    accepted bigint NOT NULL,
    PRIMARY KEY (queue, poll, partition)
);

ALTER TABLE quarantine
    ADD state text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'replay', 'counted', 'rejected')),
    ADD awaits_poll boolean NOT NULL DEFAULT false;
UPDATE quarantine SET awaits_poll = true WHERE reason = 'poll ' || poll || ' is not registered';
-- What lanes ask for again and again.
CREATE INDEX quarantine_pending ON quarantine (partition) WHERE state IN ('held', 'replay');
