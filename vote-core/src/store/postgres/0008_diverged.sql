-- A queue whose content contradicts what was read or acknowledged has diverged: the word `cut` said that of one cause.
ALTER TABLE queues DROP CONSTRAINT queues_state_check;
UPDATE queues SET state = 'diverged' WHERE state = 'cut';
ALTER TABLE queues ADD CONSTRAINT queues_state_check CHECK (state IN ('active', 'diverged', 'retired'));
