//! Rows of one log in a file: that of the current queue, or that of a replaced one.

use crate::{
    Partition, Partitions, PepperFingerprint,
    queue::{Backlog, Entry, Frame, Layout, Position, QueueError, QueueId, ReplacedQueue},
    sqlite::{Failure, Transaction, signed},
};

/// The current queue of the file, which is the one with the highest number in `queues`.
pub(super) struct CurrentQueue {
    pub(super) number: i64,
    pub(super) id: QueueId,
    pub(super) version: u16,
    pub(super) layout: Layout,
    pub(super) active: bool,
    pub(super) clock_ahead: Option<i64>,
}

impl CurrentQueue {
    /// Returns the current queue, if the file holds any.
    pub(super) async fn find(tx: &mut Transaction<'_>) -> Result<Option<Self>, Failure> {
        let query = sqlx::query_as(
            "SELECT queue, id, version, partitions, fingerprint, active, clock_ahead
             FROM queues ORDER BY queue DESC LIMIT 1",
        );
        type Row = (i64, Vec<u8>, u16, u16, Vec<u8>, bool, Option<i64>);
        let found: Option<Row> = tx.one(query).await?;
        let Some((number, id, version, partitions, fingerprint, active, clock_ahead)) = found else {
            return Ok(None);
        };
        let id = queue_id(tx, id)?;
        let partitions = Partitions::new(partitions).map_err(|e| tx.damaged(e))?;
        let fingerprint = PepperFingerprint(
            fingerprint.try_into().map_err(|_| tx.damaged("the pepper fingerprint of a queue"))?,
        );
        Ok(Some(Self {
            number,
            id,
            version,
            layout: Layout { partitions, fingerprint },
            active,
            clock_ahead,
        }))
    }

    /// Returns the current queue; fails with `Replaced` if it is another one.
    pub(super) async fn by_id(tx: &mut Transaction<'_>, id: QueueId) -> Result<Self, QueueError> {
        match Self::find(tx).await? {
            Some(current) if current.id == id => Ok(current),
            _ => Err(QueueError::Replaced),
        }
    }

    /// Returns the votes ever accepted in each of these partitions.
    pub(super) async fn accepted_in(
        &self,
        tx: &mut Transaction<'_>,
        partitions: &[Partition],
    ) -> Result<Vec<u64>, Failure> {
        let mut accepted = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let query = sqlx::query_as(
                "SELECT coalesce(sum(votes), 0) FROM accepted WHERE queue = ?1 AND partition = ?2",
            );
            let sum: Option<(u64,)> = tx.one(query.bind(self.number).bind(partition.0)).await?;
            accepted.push(sum.map_or(0, |(votes,)| votes));
        }
        Ok(accepted)
    }

    /// Returns the last position of each partition; if its entry was trimmed, without a check.
    pub(super) async fn ends(&self, tx: &mut Transaction<'_>) -> Result<Vec<Position>, Failure> {
        let query = sqlx::query_as(
            "SELECT a.partition, a.last, f.poll, f.votes, f.frame
             FROM (SELECT partition, max(last) AS last FROM accepted WHERE queue = ?1 GROUP BY partition) AS a
             LEFT JOIN frames AS f ON f.position = a.last AND f.queue = ?1",
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

    /// Adds a frame at the end of its partition and its votes to the accepted ones; returns its position.
    pub(super) async fn store(&self, tx: &mut Transaction<'_>, frame: &Frame) -> Result<Position, Failure> {
        let insert = sqlx::query(
            "INSERT INTO frames (queue, partition, poll, votes, frame) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(self.number)
        .bind(frame.partition.0)
        .bind(frame.poll.as_str())
        .bind(frame.votes)
        .bind(&frame.bytes[..]);
        let number = tx.run(insert).await?.last_insert_rowid();
        let count = sqlx::query(
            "INSERT INTO accepted (queue, partition, poll, votes, last) VALUES (?1, ?2, ?3, ?4, ?5)
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

    /// Turns the remaining entries of this queue, which is about to be replaced, into a [`ReplacedQueue`]. Without
    /// entries there is nothing to record.
    pub(super) async fn keep_as_replaced(&self, tx: &mut Transaction<'_>) -> Result<(), QueueError> {
        let id = QueueId::random()?;
        let insert = sqlx::query(
            "INSERT INTO replaced_queues (queue, id) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM frames WHERE queue = ?1)",
        );
        tx.run(insert.bind(self.number).bind(&id.0[..])).await?;
        Ok(())
    }
}

/// A log that can be read and trimmed: that of the current queue, or that of a replaced one.
pub(super) struct Log {
    pub(super) number: i64,
    partitions: Partitions,
    /// Whether it is the current queue, or else a replaced one.
    pub(super) is_current: bool,
}

impl Log {
    /// Returns the log with this id; fails with `Replaced` if neither the current nor a replaced queue has it.
    pub(super) async fn by_id(tx: &mut Transaction<'_>, id: QueueId) -> Result<Self, QueueError> {
        match CurrentQueue::find(tx).await? {
            Some(CurrentQueue { number, id: current, layout, .. }) if current == id => {
                return Ok(Self { number, partitions: layout.partitions, is_current: true });
            }
            _ => {}
        }
        let query = sqlx::query_as(
            "SELECT b.queue, b.partitions FROM replaced_queues AS r JOIN queues AS b USING (queue) WHERE r.id = ?1",
        );
        let found: Option<(i64, u16)> = tx.one(query.bind(&id.0[..])).await?;
        let (number, partitions) = found.ok_or(QueueError::Replaced)?;
        let partitions = Partitions::new(partitions).map_err(|e| tx.damaged(e))?;
        Ok(Self { number, partitions, is_current: false })
    }

    /// Fails with `NoPartition` if the log has no such partition.
    pub(super) fn has(&self, partition: Partition) -> Result<(), QueueError> {
        if self.partitions.contains(partition) { Ok(()) } else { Err(QueueError::NoPartition(partition)) }
    }

    /// Returns the entry at a position, if it is the one that was there when the position was assigned.
    pub(super) async fn entry_at(
        &self,
        tx: &mut Transaction<'_>,
        partition: Partition,
        at: Position,
    ) -> Result<Option<Entry>, Failure> {
        let query = sqlx::query_as(
            "SELECT position, poll, votes, frame FROM frames WHERE position = ?1 AND queue = ?2 AND partition = ?3",
        )
        // NULL, which equals nothing, if this queue never assigned such a position.
        .bind(number(at))
        .bind(self.number)
        .bind(partition.0);
        let found: Option<Row> = tx.one(query).await?;
        Ok(found.map(entry).filter(|entry| at.is_of(&entry.position)))
    }

    /// Forgets a replaced queue that has no entries left.
    pub(super) async fn forget_if_empty(&self, tx: &mut Transaction<'_>) -> Result<(), Failure> {
        let delete = sqlx::query(
            "DELETE FROM replaced_queues WHERE queue = ?1 AND NOT EXISTS (SELECT 1 FROM frames WHERE queue = ?1)",
        );
        tx.run(delete.bind(self.number)).await?;
        Ok(())
    }

    /// Returns the backlog behind positions, one for each partition. Two statements serve all partitions, since there
    /// may be a thousand.
    pub(super) async fn backlog(
        &self,
        tx: &mut Transaction<'_>,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, Failure> {
        let after: Vec<_> = after.iter().copied().take(usize::from(self.partitions.count())).collect();
        // A position that this queue never assigned has all entries behind it. These are only numbers, so joining
        // them makes valid JSON.
        let numbers: Vec<_> = after.iter().map(|at| number(*at).unwrap_or_default().to_string()).collect();
        let numbers = format!("[{}]", numbers.join(","));
        let nothing = |at: &Position| Backlog { end: *at, complete: true, ..Backlog::default() };
        let mut backlog: Vec<_> = after.iter().map(nothing).collect();
        let ends = sqlx::query_as(
            "SELECT a.key, f.position, f.poll, f.votes, f.frame
             FROM json_each(?2) AS a CROSS JOIN frames AS f ON f.position = (
                 SELECT max(position) FROM frames WHERE queue = ?1 AND partition = a.key AND position > a.value)",
        );
        type End = (u16, i64, String, u64, Vec<u8>);
        let ends: Vec<End> = tx.all(ends.bind(self.number).bind(&numbers)).await?;
        for (partition, end, poll, votes, frame) in ends {
            let Some(backlog) = backlog.get_mut(usize::from(partition)) else { continue };
            // Complete only if the count below reaches this end.
            (backlog.end, backlog.complete) = (position(end, &poll, votes, &frame), false);
        }
        // CROSS JOIN makes SQLite go partition by partition, whatever its planner estimates.
        let votes = sqlx::query_as(
            "SELECT a.key, f.poll, sum(f.votes), max(f.position)
             FROM json_each(?2) AS a CROSS JOIN frames AS f ON f.position IN (
                 SELECT position FROM frames WHERE queue = ?1 AND partition = a.key AND position > a.value
                 ORDER BY position LIMIT ?3)
             GROUP BY a.key, f.poll",
        );
        let votes = votes.bind(self.number).bind(&numbers).bind(signed(limit as u64));
        let votes: Vec<(u16, String, u64, i64)> = tx.all(votes).await?;
        for (partition, poll, votes, last) in votes {
            let Some(backlog) = backlog.get_mut(usize::from(partition)) else { continue };
            backlog.votes.insert(poll, votes);
            backlog.complete |= number(backlog.end) == Some(last);
        }
        Ok(backlog)
    }
}

/// Returns the replaced queues that still have entries, the oldest first.
pub(super) async fn replaced(tx: &mut Transaction<'_>) -> Result<Vec<ReplacedQueue>, Failure> {
    let query = sqlx::query_as(
        "SELECT r.id, b.id FROM replaced_queues AS r JOIN queues AS b USING (queue)
         WHERE EXISTS (SELECT 1 FROM frames AS f WHERE f.queue = r.queue) ORDER BY r.queue",
    );
    let rows: Vec<(Vec<u8>, Vec<u8>)> = tx.all(query).await?;
    let replaced = |(id, of)| Ok(ReplacedQueue { id: queue_id(tx, id)?, of: queue_id(tx, of)? });
    rows.into_iter().map(replaced).collect()
}

fn queue_id(tx: &Transaction<'_>, bytes: Vec<u8>) -> Result<QueueId, Failure> {
    bytes.try_into().map(QueueId).map_err(|_| tx.damaged("the id of a queue"))
}

/// A row of `frames`: order number, poll, votes and frame.
pub(super) type Row = (i64, String, u64, Vec<u8>);

pub(super) fn entry((number, poll, votes, frame): Row) -> Entry {
    Entry { position: position(number, &poll, votes, &frame), poll, votes, frame: frame.into() }
}

/// Returns the position of a row. Its order number is 8 bytes big-endian, so that the bytes sort like the numbers.
fn position(number: i64, poll: &str, votes: u64, frame: &[u8]) -> Position {
    Position::of_entry(&number.to_be_bytes(), poll, votes, frame).unwrap_or_default()
}

/// Returns the order number of a position that a SQLite queue assigned, with a check or, as in earlier versions,
/// without one; `None` for any other position.
pub(super) fn number(position: Position) -> Option<i64> {
    let (order, check) = position.as_bytes().split_first_chunk()?;
    matches!(check.len(), 0 | Position::CHECK).then(|| i64::from_be_bytes(*order))
}
