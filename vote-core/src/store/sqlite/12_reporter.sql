-- Server that a queue was last seen on, and the worker that reported it.
ALTER TABLE queues ADD COLUMN server TEXT NOT NULL DEFAULT '';
ALTER TABLE queues ADD COLUMN reporter BLOB;
