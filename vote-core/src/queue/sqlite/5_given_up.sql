-- The definition of each poll that was given up last: it is not recorded again before another one was.
CREATE TABLE given_up (
    box    INTEGER NOT NULL REFERENCES boxes,
    poll   TEXT    NOT NULL,
    digest BLOB    NOT NULL,
    PRIMARY KEY (box, poll)
) STRICT, WITHOUT ROWID;
