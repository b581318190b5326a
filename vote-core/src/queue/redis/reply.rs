//! What Redis answers, as what the trait returns.

use std::collections::BTreeMap;

use fred::types::Value;

use super::entry;
use crate::{
    Partition, Partitions, Timestamp,
    queue::{
        Appended, Counters, Layout, Position, QueueError, QueueStatus, Read, Remains, Room, Seal, Unread,
        poll_name,
    },
};

pub(super) fn unexpected(what: &str, value: &Value) -> QueueError {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.floor_char_boundary(200));
    QueueError::Incompatible(format!("{what}: {shown}"))
}

pub(super) fn text(value: &Value) -> Result<String, QueueError> {
    value.as_string().ok_or_else(|| unexpected("a text", value))
}

fn array(value: Value) -> Result<Vec<Value>, QueueError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected("a list", &other)),
    }
}

fn number(value: &Value) -> Result<u64, QueueError> {
    value.as_u64().ok_or_else(|| unexpected("a number", value))
}

/// A stream entry's id as a position.
pub(super) fn position(value: &Value) -> Result<Position, QueueError> {
    let text = text(value)?;
    let parts =
        text.split_once('-').and_then(|(ms, seq)| Some((ms.parse::<u64>().ok()?, seq.parse::<u64>().ok()?)));
    let (ms, seq) = parts.ok_or_else(|| unexpected("a position", value))?;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&ms.to_be_bytes());
    bytes[8..].copy_from_slice(&seq.to_be_bytes());
    Position::from_bytes(&bytes).ok_or_else(|| unexpected("a position", value))
}

/// A position as a stream entry's id; none for the start.
pub(super) fn entry_id(position: Position) -> Option<String> {
    let (ms, seq) = position.as_bytes().split_first_chunk::<8>()?;
    let seq = seq.first_chunk::<8>()?;
    Some(format!("{}-{}", u64::from_be_bytes(*ms), u64::from_be_bytes(*seq)))
}

fn pairs(value: Value) -> Result<Vec<(String, u64)>, QueueError> {
    match value {
        Value::Map(map) => map
            .inner()
            .iter()
            .map(|(key, value)| Ok((key.as_str_lossy().into_owned(), number(value)?)))
            .collect(),
        Value::Null => Ok(Vec::new()),
        other => array(other)?.chunks_exact(2).map(|pair| Ok((text(&pair[0])?, number(&pair[1])?))).collect(),
    }
}

/// What `INFO memory` says of the limit that `maxmemory` sets. Buffers of the log and of replicas do not count against it.
pub(super) fn room(info: &str) -> Result<Room, QueueError> {
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let (Some(used), Some(limit)) = (field("used_memory"), field("maxmemory")) else {
        return Err(unexpected("INFO memory", &Value::String(info.into())));
    };
    let not_counted = field("mem_not_counted_for_evict").unwrap_or(0);
    Ok(Room { used: used.saturating_sub(not_counted), limit: (limit > 0).then_some(limit) })
}

pub(super) fn status(reply: Value) -> Result<Option<QueueStatus>, QueueError> {
    let fields = array(reply)?;
    if fields.is_empty() {
        return Ok(None);
    }
    let [id, meta, accepted, sealed, entries, server, remains] =
        <[Value; 7]>::try_from(fields).map_err(|fields| unexpected("the status", &Value::Array(fields)))?;
    let meta = array(meta)?;
    let damaged = || unexpected("the box's meta data", &Value::Array(meta.clone()));
    let [version, partitions, pepper, registered] = meta.as_slice() else { return Err(damaged()) };
    let partitions = partitions.as_u64().and_then(|n| Partitions::new(u16::try_from(n).ok()?).ok());
    let layout = Layout {
        partitions: partitions.ok_or_else(damaged)?,
        fingerprint: pepper.as_string().and_then(|text| text.parse().ok()).ok_or_else(damaged)?,
    };
    let accepted = pairs(accepted)?;
    let mut counters = BTreeMap::new();
    for (field, votes) in accepted {
        let (partition, poll) = field.split_once(':').ok_or_else(damaged)?;
        let partition = Partition(partition.parse().map_err(|_| damaged())?);
        counters.entry(partition).or_insert_with(BTreeMap::new).insert(poll_name(poll), votes);
    }
    Ok(Some(QueueStatus {
        id: text(&id)?.parse().map_err(|_| unexpected("the box", &id))?,
        version: version.as_u64().and_then(|n| u16::try_from(n).ok()).ok_or_else(damaged)?,
        layout,
        registered: registered.as_u64() == Some(1),
        server: text(&server)?,
        accepted: counters,
        entries: array(entries)?.iter().map(number).collect::<Result<_, _>>()?,
        // A name that is no slug was never sealed by this crate.
        sealed: array(sealed)?.iter().filter_map(|poll| poll.as_string()?.parse().ok()).collect(),
        remains: array(remains)?.into_iter().map(remains_of).collect::<Result<_, _>>()?,
    }))
}

fn remains_of(value: Value) -> Result<Remains, QueueError> {
    let fields = array(value)?;
    let [id, of] =
        <[Value; 2]>::try_from(fields).map_err(|fields| unexpected("remains", &Value::Array(fields)))?;
    Ok(Remains {
        id: text(&id)?.parse().map_err(|_| unexpected("the name of remains", &id))?,
        of: text(&of)?.parse().map_err(|_| unexpected("the name of a box", &of))?,
    })
}

/// The last position of a partition, or nothing.
fn end(value: &Value) -> Result<Position, QueueError> {
    if value.is_null() { Ok(Position::START) } else { position(value) }
}

pub(super) fn unread(reply: Value, after: &[Position]) -> Result<Vec<Unread>, QueueError> {
    let of_partition = |(value, after): (Value, &Position)| {
        let fields = array(value)?;
        let [last, complete, first, votes @ ..] = fields.as_slice() else {
            return Err(unexpected("what is unread", &Value::Array(fields)));
        };
        let mut counters = Counters::new();
        for (poll, n) in pairs(Value::Array(votes.to_vec()))? {
            *counters.entry(poll_name(&poll)).or_default() += n;
        }
        Ok(Unread {
            end: end(last)?.max(*after),
            votes: counters,
            complete: complete.as_u64() == Some(1),
            oldest: appended_at(end(first)?),
        })
    };
    array(reply)?.into_iter().zip(after).map(of_partition).collect()
}

/// A stream entry's id begins with the milliseconds at which Redis made it.
fn appended_at(position: Position) -> Option<Timestamp> {
    let millis = u64::from_be_bytes(*position.as_bytes().first_chunk()?);
    Timestamp::from_micros(i64::try_from(millis).ok()?.checked_mul(1000)?).ok()
}

pub(super) fn appended(reply: Value) -> Result<Vec<Appended>, QueueError> {
    let answer = |value: &Value| match value {
        Value::Null => Ok(Appended::Sealed),
        value => position(value).map(Appended::Stored),
    };
    array(reply)?.iter().map(answer).collect()
}

pub(super) fn seal(reply: Value) -> Result<Seal, QueueError> {
    let mut seal = Seal { ends: Vec::new(), accepted: Vec::new() };
    for pair in array(reply)?.chunks_exact(2) {
        seal.ends.push(end(&pair[0])?);
        seal.accepted.push(number(&pair[1])?);
    }
    Ok(seal)
}

pub(super) fn read(reply: Value, after: Position, limit: usize) -> Result<Read, QueueError> {
    let [found, accepted] = <[Value; 2]>::try_from(array(reply)?)
        .map_err(|fields| unexpected("a read", &Value::Array(fields)))?;
    let mut entries = Vec::new();
    for value in array(found)? {
        let pair = array(value)?;
        let [at, fields] = pair.as_slice() else { return Err(unexpected("an entry", &Value::Array(pair))) };
        let fields = if fields.is_null() { Vec::new() } else { array(fields.clone())? };
        entries.push(entry(position(at)?, &fields));
    }
    let is_box = !accepted.is_null();
    if is_box && after != Position::START {
        if entries.first().is_none_or(|first| first.position != after) {
            return Err(QueueError::Cut(after));
        }
        entries.remove(0);
    }
    let at_end = entries.len() <= limit;
    entries.truncate(limit);
    let counters = pairs(accepted)?.into_iter().map(|(poll, votes)| (poll_name(&poll), votes)).collect();
    Ok(Read { entries, at_end, accepted: (is_box && at_end).then_some(counters) })
}
