-- Tables, columns and states are called what the code calls them.
ALTER TABLE meta RENAME COLUMN pepper TO fingerprint;
ALTER TABLE queues RENAME COLUMN remains_of TO original_id;
ALTER TABLE given_up RENAME TO dropped_polls;
ALTER TABLE dropped_polls RENAME CONSTRAINT given_up_pkey TO dropped_polls_pkey;

ALTER TABLE quarantine RENAME COLUMN set_aside_at TO quarantined_at;
DROP INDEX quarantine_pending;
ALTER TABLE quarantine DROP CONSTRAINT quarantine_state_check;
UPDATE quarantine SET state = 'quarantined' WHERE state = 'held';
ALTER TABLE quarantine
    ALTER state SET DEFAULT 'quarantined',
    ADD CONSTRAINT quarantine_state_check CHECK (state IN ('quarantined', 'replay', 'counted', 'rejected'));
-- What lanes ask for again and again.
CREATE INDEX quarantine_pending ON quarantine (partition) WHERE state IN ('quarantined', 'replay');
