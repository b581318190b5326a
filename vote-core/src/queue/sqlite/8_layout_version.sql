-- Version 2 of the layout differs from version 1 on Redis only.
UPDATE queues SET version = 2 WHERE version = 1;
