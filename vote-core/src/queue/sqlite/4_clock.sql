-- How far the clock of this machine was ahead of the store's when a worker last compared the two, in microseconds.
ALTER TABLE boxes ADD COLUMN clock_ahead INTEGER;
