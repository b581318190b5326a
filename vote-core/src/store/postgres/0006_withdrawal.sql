-- Polls can be withdrawn before anybody voted, and their names registered with another definition. The row of an earlier
-- definition stays, under the name of its poll with '#' and its number behind it.
ALTER TABLE polls
    ADD withdrawn_at timestamptz,
    ADD withdrawn_reason text,
    ADD CHECK ((withdrawn_at IS NULL) = (withdrawn_reason IS NULL)),
    -- Votes of a closed poll are counted.
    ADD CHECK (withdrawn_at IS NULL OR closed_at IS NULL);

-- Queues that take no votes for a poll any more that was withdrawn then.
CREATE TABLE given_up (
    queue uuid NOT NULL,
    poll smallint NOT NULL REFERENCES polls,
    withdrawn_at timestamptz NOT NULL,
    PRIMARY KEY (queue, poll, withdrawn_at)
);
