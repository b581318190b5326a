-- What the boxes know of polls: the digest of the definition for which votes are taken, and when that stops, by time
-- (microseconds since 1970) or because the poll is sealed.
CREATE TABLE polls (
    box       INTEGER NOT NULL REFERENCES boxes,
    poll      TEXT    NOT NULL,
    digest    BLOB,
    closes_at INTEGER,
    sealed    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (box, poll),
    CHECK (sealed OR digest IS NOT NULL)
) STRICT, WITHOUT ROWID;

INSERT INTO polls (box, poll, sealed) SELECT box, poll, 1 FROM sealed;
DROP TABLE sealed;
