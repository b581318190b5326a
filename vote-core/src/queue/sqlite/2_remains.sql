-- What is left of boxes that were replaced: their frames, under an identity of their own. Forgotten with the last frame.
CREATE TABLE remains (
    box INTEGER PRIMARY KEY REFERENCES boxes,
    id  BLOB    NOT NULL UNIQUE
) STRICT;

-- Boxes that were replaced before there was this table.
INSERT INTO remains (box, id)
SELECT box, randomblob(16) FROM boxes
WHERE box < (SELECT max(box) FROM boxes)
  AND EXISTS (SELECT 1 FROM frames WHERE frames.box = boxes.box);
