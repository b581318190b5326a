-- Tables and columns are called what the code calls them.
ALTER TABLE boxes RENAME TO queues;
ALTER TABLE queues RENAME COLUMN box TO queue;
ALTER TABLE queues RENAME COLUMN registered TO active;
ALTER TABLE frames RENAME COLUMN box TO queue;
ALTER TABLE accepted RENAME COLUMN box TO queue;
ALTER TABLE polls RENAME COLUMN box TO queue;
ALTER TABLE remains RENAME TO replaced_queues;
ALTER TABLE replaced_queues RENAME COLUMN box TO queue;
ALTER TABLE given_up RENAME TO dropped_polls;
ALTER TABLE dropped_polls RENAME COLUMN box TO queue;
