-- Votes are quarantined one by one, and the other votes of their frame are counted. `votes` is the number of votes that
-- are quarantined, as before.
--
-- A worker that does not know these columns yet decodes a frame as one of `votes` votes. Where others of it are counted
-- that fails, so that no such worker counts them again.

ALTER TABLE quarantine
    -- The indices in the frame, from 0, of the votes that are quarantined. NULL: all of them.
    ADD indices integer[],
    -- The number of votes that the queue accounted the frame as. NULL: as many as `votes`.
    ADD accounted bigint,
    ADD CONSTRAINT quarantine_votes_are_indexed CHECK (cardinality(indices) = votes);
