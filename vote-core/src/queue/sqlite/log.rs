//! The rows of one log of a file: of the box that takes votes now, or of what is left of one that was replaced.

use crate::{
    Partition, Partitions, PepperFingerprint,
    queue::{Entry, Frame, Layout, Position, QueueError, QueueId, Remains, Unread},
    sqlite::{Failure, Transaction, signed},
};

/// The box that takes votes now.
pub(super) struct CurrentBox {
    pub(super) number: i64,
    pub(super) id: QueueId,
    pub(super) version: u16,
    pub(super) layout: Layout,
    pub(super) registered: bool,
}

impl CurrentBox {
    pub(super) async fn find(tx: &mut Transaction<'_>) -> Result<Option<Self>, Failure> {
        let query = sqlx::query_as(
            "SELECT box, id, version, partitions, fingerprint, registered FROM boxes ORDER BY box DESC LIMIT 1",
        );
        type Row = (i64, Vec<u8>, u16, u16, Vec<u8>, bool);
        let found: Option<Row> = tx.one(query).await?;
        let Some((number, id, version, partitions, fingerprint, registered)) = found else { return Ok(None) };
        let id = queue_id(tx, id)?;
        let partitions = Partitions::new(partitions).map_err(|e| tx.damaged(e))?;
        let fingerprint =
            PepperFingerprint(fingerprint.try_into().map_err(|_| tx.damaged("the fingerprint of a box"))?);
        Ok(Some(Self { number, id, version, layout: Layout { partitions, fingerprint }, registered }))
    }

    pub(super) async fn named(tx: &mut Transaction<'_>, id: QueueId) -> Result<Self, QueueError> {
        match Self::find(tx).await? {
            Some(current) if current.id == id => Ok(current),
            _ => Err(QueueError::AnotherBox),
        }
    }

    /// The last position of each partition, which is known even when its entry is gone; then without a check.
    pub(super) async fn ends(&self, tx: &mut Transaction<'_>) -> Result<Vec<Position>, Failure> {
        let query = sqlx::query_as(
            "SELECT a.partition, a.last, f.poll, f.votes, f.frame
             FROM (SELECT partition, max(last) AS last FROM accepted WHERE box = ?1 GROUP BY partition) AS a
             LEFT JOIN frames AS f ON f.position = a.last AND f.box = ?1",
        );
        type Last = (u16, i64, Option<String>, Option<u64>, Option<Vec<u8>>);
        let rows: Vec<Last> = tx.all(query.bind(self.number)).await?;
        let mut ends = vec![Position::START; usize::from(self.layout.partitions.count())];
        for (partition, last, poll, votes, frame) in rows {
            let end = ends.get_mut(usize::from(partition));
            *end.ok_or_else(|| tx.damaged("the partition of a count"))? = match (poll, votes, frame) {
                (Some(poll), Some(votes), Some(frame)) => position(last, &poll, votes, &frame),
                _ => Position::from_bytes(&last.to_be_bytes()).unwrap_or_default(),
            };
        }
        Ok(ends)
    }

    /// Adds a frame at the end of its partition, and its votes to the accepted ones.
    pub(super) async fn store(&self, tx: &mut Transaction<'_>, frame: &Frame) -> Result<Position, Failure> {
        let insert = sqlx::query(
            "INSERT INTO frames (box, partition, poll, votes, frame) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(self.number)
        .bind(frame.partition.0)
        .bind(frame.poll.as_str())
        .bind(frame.votes)
        .bind(&frame.bytes[..]);
        let number = tx.run(insert).await?.last_insert_rowid();
        let count = sqlx::query(
            "INSERT INTO accepted (box, partition, poll, votes, last) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET votes = votes + excluded.votes, last = excluded.last",
        )
        .bind(self.number)
        .bind(frame.partition.0)
        .bind(frame.poll.as_str())
        .bind(frame.votes)
        .bind(number);
        tx.run(count).await?;
        Ok(position(number, frame.poll.as_str(), frame.votes.into(), &frame.bytes))
    }

    /// Makes what the box still holds into remains, now that it is replaced. Nothing left is nothing to remember.
    pub(super) async fn leave_remains(&self, tx: &mut Transaction<'_>) -> Result<(), QueueError> {
        let id = QueueId::random()?;
        let insert = sqlx::query(
            "INSERT INTO remains (box, id) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM frames WHERE box = ?1)",
        );
        tx.run(insert.bind(self.number).bind(&id.0[..])).await?;
        Ok(())
    }
}

/// What can be read and trimmed.
pub(super) struct Log {
    pub(super) number: i64,
    partitions: Partitions,
    /// Whether it is the box, or else remains.
    pub(super) is_box: bool,
}

impl Log {
    pub(super) async fn named(tx: &mut Transaction<'_>, id: QueueId) -> Result<Self, QueueError> {
        match CurrentBox::find(tx).await? {
            Some(CurrentBox { number, id: current, layout, .. }) if current == id => {
                return Ok(Self { number, partitions: layout.partitions, is_box: true });
            }
            _ => {}
        }
        let query = sqlx::query_as(
            "SELECT b.box, b.partitions FROM remains AS r JOIN boxes AS b USING (box) WHERE r.id = ?1",
        );
        let found: Option<(i64, u16)> = tx.one(query.bind(&id.0[..])).await?;
        let (number, partitions) = found.ok_or(QueueError::AnotherBox)?;
        let partitions = Partitions::new(partitions).map_err(|e| tx.damaged(e))?;
        Ok(Self { number, partitions, is_box: false })
    }

    pub(super) fn has(&self, partition: Partition) -> Result<(), QueueError> {
        if self.partitions.contains(partition) { Ok(()) } else { Err(QueueError::NoPartition(partition)) }
    }

    /// Forgets remains of which nothing is left.
    /// The entry at a position, if it is the one that was there when the position was given out.
    pub(super) async fn entry_at(
        &self,
        tx: &mut Transaction<'_>,
        partition: Partition,
        at: Position,
    ) -> Result<Option<Entry>, Failure> {
        let query = sqlx::query_as(
            "SELECT position, poll, votes, frame FROM frames WHERE position = ?1 AND box = ?2 AND partition = ?3",
        )
        // NULL, which nothing equals, if this queue never gave out such a position.
        .bind(number(at))
        .bind(self.number)
        .bind(partition.0);
        let found: Option<Row> = tx.one(query).await?;
        Ok(found.map(entry).filter(|entry| at.is_of(&entry.position)))
    }

    pub(super) async fn forget_if_empty(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        let delete = sqlx::query(
            "DELETE FROM remains WHERE box = ?1 AND NOT EXISTS (SELECT 1 FROM frames WHERE box = ?1)",
        );
        tx.run(delete.bind(self.number)).await?;
        Ok(())
    }

    /// What lies behind positions, one for each partition. Two statements for all, since there may be a thousand.
    pub(super) async fn unread(
        &self,
        tx: &mut Transaction<'_>,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Unread>, Failure> {
        let after: Vec<_> = after.iter().copied().take(usize::from(self.partitions.count())).collect();
        // A position that this queue never gave out has everything behind it. Numbers only, so this is JSON.
        let numbers: Vec<_> = after.iter().map(|at| number(*at).unwrap_or_default().to_string()).collect();
        let numbers = format!("[{}]", numbers.join(","));
        let nothing = |at: &Position| Unread { end: *at, complete: true, ..Unread::default() };
        let mut unread: Vec<_> = after.iter().map(nothing).collect();
        let ends = sqlx::query_as(
            "SELECT a.key, f.position, f.poll, f.votes, f.frame
             FROM json_each(?2) AS a CROSS JOIN frames AS f ON f.position = (
                 SELECT max(position) FROM frames WHERE box = ?1 AND partition = a.key AND position > a.value)",
        );
        type End = (u16, i64, String, u64, Vec<u8>);
        let ends: Vec<End> = tx.all(ends.bind(self.number).bind(&numbers)).await?;
        for (partition, end, poll, votes, frame) in ends {
            let Some(unread) = unread.get_mut(usize::from(partition)) else { continue };
            // Complete only if the count, which follows, reaches it.
            (unread.end, unread.complete) = (position(end, &poll, votes, &frame), false);
        }
        // CROSS JOIN: partition by partition, whatever the planner believes.
        let votes = sqlx::query_as(
            "SELECT a.key, f.poll, sum(f.votes), max(f.position)
             FROM json_each(?2) AS a CROSS JOIN frames AS f ON f.position IN (
                 SELECT position FROM frames WHERE box = ?1 AND partition = a.key AND position > a.value
                 ORDER BY position LIMIT ?3)
             GROUP BY a.key, f.poll",
        );
        let votes = votes.bind(self.number).bind(&numbers).bind(signed(limit as u64));
        let votes: Vec<(u16, String, u64, i64)> = tx.all(votes).await?;
        for (partition, poll, votes, last) in votes {
            let Some(unread) = unread.get_mut(usize::from(partition)) else { continue };
            unread.votes.insert(poll, votes);
            unread.complete |= number(unread.end) == Some(last);
        }
        Ok(unread)
    }
}

/// What is left of boxes that were replaced, the oldest first.
pub(super) async fn remains(tx: &mut Transaction<'_>) -> Result<Vec<Remains>, Failure> {
    let query = sqlx::query_as(
        "SELECT r.id, b.id FROM remains AS r JOIN boxes AS b USING (box)
         WHERE EXISTS (SELECT 1 FROM frames AS f WHERE f.box = r.box) ORDER BY r.box",
    );
    let rows: Vec<(Vec<u8>, Vec<u8>)> = tx.all(query).await?;
    let remains = |(id, of)| Ok(Remains { id: queue_id(tx, id)?, of: queue_id(tx, of)? });
    rows.into_iter().map(remains).collect()
}

fn queue_id(tx: &Transaction<'_>, bytes: Vec<u8>) -> Result<QueueId, Failure> {
    bytes.try_into().map(QueueId).map_err(|_| tx.damaged("the id of a box"))
}

/// A row of `frames`: position, poll, votes and frame.
pub(super) type Row = (i64, String, u64, Vec<u8>);

pub(super) fn entry((number, poll, votes, frame): Row) -> Entry {
    Entry { position: position(number, &poll, votes, &frame), poll, votes, frame: frame.into() }
}

/// The order number has 8 bytes, big-endian, so that their order is that of the numbers.
fn position(number: i64, poll: &str, votes: u64, frame: &[u8]) -> Position {
    Position::of_entry(&number.to_be_bytes(), poll, votes, frame).unwrap_or_default()
}

/// The order number of a position that this queue gave out, with a check or, before there were any, without.
pub(super) fn number(position: Position) -> Option<i64> {
    let (order, check) = position.as_bytes().split_first_chunk()?;
    matches!(check.len(), 0 | Position::CHECK).then(|| i64::from_be_bytes(*order))
}
