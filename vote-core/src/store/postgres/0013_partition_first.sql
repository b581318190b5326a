-- Whatever a lane does concerns one partition, so the rows of a partition are next to each other in the index.
ALTER TABLE ledger DROP CONSTRAINT ledger_pkey, ADD PRIMARY KEY (partition, queue, poll);
ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_pkey, ADD PRIMARY KEY (partition, queue);
-- What a queue that is looked at was read to.
CREATE INDEX checkpoints_queue ON checkpoints (queue);
-- What all queues held of a poll in a partition, which decides whether the partition is complete.
ALTER TABLE seals DROP CONSTRAINT seals_pkey, ADD PRIMARY KEY (poll, partition, queue);
-- A commit may change every row of a page. Half of each page stays free, so that the new versions of its rows fit into
-- it, and no index has to be changed.
ALTER TABLE ledger SET (fillfactor = 50);
ALTER TABLE checkpoints SET (fillfactor = 50);
-- Votes that could not be counted, of a poll in a partition.
CREATE INDEX quarantine_of_poll ON quarantine (partition, poll) WHERE state <> 'counted';
