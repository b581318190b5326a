-- When the results of a poll may be shown. Of a poll that was registered before, or is by a worker that does not know this
-- column yet, it is not known: the default is the stricter of the two, so that no number is published by mistake.
ALTER TABLE polls
    ADD results text NOT NULL DEFAULT 'after-close' CHECK (results IN ('live', 'after-close'));
