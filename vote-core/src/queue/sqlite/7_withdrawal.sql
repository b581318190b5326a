-- Time of the withdrawal for which the definition was dropped, in microseconds since 1970. Earlier versions did not
-- store it.
ALTER TABLE dropped_polls ADD COLUMN withdrawn_at INTEGER;
