//! Parsing of replies: from the values of Redis to the types of the trait.

use std::borrow::Cow;

use fred::types::Value;
use serde::Deserialize;

use super::{
    entry::{self, end, entry},
    value::{array, poll_name, text, unexpected},
};
use crate::{
    Partition, Partitions, PollDigest, PollSlug, Timestamp,
    queue::{
        Accepted, Appended, Backlog, Counters, Frame, Layout, Look, PollState, Position, QueueClock,
        QueueError, QueueStatus, Read, ReplacedQueue, Seal, Usage,
    },
};

fn number(value: &Value) -> Result<u64, QueueError> {
    value.as_u64().ok_or_else(|| unexpected("a number", value))
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

/// Parses `INFO memory`: what counts against `maxmemory`, which buffers of the append-only file and of replicas do
/// not.
pub(super) fn usage(info: &str) -> Result<Usage, QueueError> {
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let (Some(used), Some(limit)) = (field("used_memory"), field("maxmemory")) else {
        return Err(unexpected("INFO memory", &Value::String(info.into())));
    };
    let not_counted = field("mem_not_counted_for_evict").unwrap_or(0);
    Ok(Usage { used: used.saturating_sub(not_counted), limit: (limit > 0).then_some(limit) })
}

/// Parses votes by poll.
fn counters(value: Value) -> Result<Counters, QueueError> {
    Ok(pairs(value)?.into_iter().map(|(poll, votes)| (poll_name(poll.into()).into_owned(), votes)).collect())
}

/// Parses the votes of each partition, which a script encoded as a JSON array of polls and numbers in turn.
fn accepted_votes(partitions: &[Value]) -> Result<Accepted, QueueError> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let mut found: Vec<(Partition, Cow<'_, str>, u64)> = Vec::new();
    for (value, partition) in partitions.iter().zip(0..) {
        let damaged = || unexpected("votes by poll", value);
        let json = value.as_bytes().ok_or_else(damaged)?;
        if json.is_empty() {
            continue;
        }
        let texts: Vec<Text<'_>> = serde_json::from_slice(json).map_err(|_| damaged())?;
        let mut texts = texts.into_iter();
        while let (Some(Text(name)), Some(Text(votes))) = (texts.next(), texts.next()) {
            found.push((Partition(partition), poll_name(name), votes.parse().map_err(|_| damaged())?));
        }
    }
    Ok(found.into_iter().collect())
}

pub(super) fn look(reply: Value) -> Result<Option<Look>, QueueError> {
    let fields = array(reply)?;
    if fields.is_empty() {
        return Ok(None);
    }
    let [id, server, replica, accepted] =
        <[Value; 4]>::try_from(fields).map_err(|fields| unexpected("a look", &Value::Array(fields)))?;
    Ok(Some(Look {
        id: text(&id)?.parse().map_err(|_| unexpected("the id of a queue", &id))?,
        server: text(&server)?,
        is_replica: replica.as_u64() == Some(1),
        accepted: array(accepted)?.iter().map(number).collect::<Result<_, _>>()?,
    }))
}

pub(super) fn status(reply: Value) -> Result<Option<QueueStatus>, QueueError> {
    let fields = array(reply)?;
    if fields.is_empty() {
        return Ok(None);
    }
    let [id, meta, accepted, polls, entries, server, replica, replaced, time] =
        <[Value; 9]>::try_from(fields).map_err(|fields| unexpected("the status", &Value::Array(fields)))?;
    let meta = array(meta)?;
    let damaged = || unexpected("the metadata of a queue", &Value::Array(meta.clone()));
    let [version, partitions, pepper, active, ahead] = meta.as_slice() else { return Err(damaged()) };
    let partitions = partitions.as_u64().and_then(|n| Partitions::new(u16::try_from(n).ok()?).ok());
    let layout = Layout {
        partitions: partitions.ok_or_else(damaged)?,
        fingerprint: pepper.as_string().and_then(|text| text.parse().ok()).ok_or_else(damaged)?,
    };
    Ok(Some(QueueStatus {
        id: text(&id)?.parse().map_err(|_| unexpected("the id of a queue", &id))?,
        version: version.as_u64().and_then(|n| u16::try_from(n).ok()).ok_or_else(damaged)?,
        layout,
        active: active.as_u64() == Some(1),
        server: text(&server)?,
        is_replica: replica.as_u64() == Some(1),
        accepted: accepted_votes(&array(accepted)?)?,
        entries: array(entries)?.iter().map(number).collect::<Result<_, _>>()?,
        // What can't be parsed was not written by this crate, or is a dropped definition: the poll is refused like
        // one that is not recorded.
        polls: texts(polls)?
            .chunks_exact(2)
            .filter_map(|pair| Some((pair[0].parse().ok()?, poll_state(&pair[1])?)))
            .collect(),
        replaced: array(replaced)?.into_iter().map(replaced_queue).collect::<Result<_, _>>()?,
        clock: QueueClock { now: time_of(time)?, ahead: ahead.as_i64() },
    }))
}

/// Parses the reply of `TIME`: seconds and microseconds.
fn time_of(value: Value) -> Result<Timestamp, QueueError> {
    let parts = array(value)?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let micros = match parts.as_slice() {
        [seconds, micros] => {
            i64::try_from(*seconds).ok().and_then(|s| s.checked_mul(1_000_000)?.checked_add_unsigned(*micros))
        }
        _ => None,
    };
    let micros =
        micros.ok_or_else(|| QueueError::Incompatible(format!("invalid time of Redis: {parts:?}")))?;
    // A clock that was never set shows 1970. That deserves a warning, but is no reason to refuse votes.
    let bounded = micros.clamp(Timestamp::MIN.as_micros(), Timestamp::MAX.as_micros());
    Ok(Timestamp::from_micros(bounded).unwrap_or(Timestamp::MIN))
}

/// Returns the texts of a list, or of a map: each key followed by its value.
fn texts(value: Value) -> Result<Vec<String>, QueueError> {
    match value {
        Value::Map(map) => {
            let pairs = map.inner();
            let each = pairs.iter().map(|(key, value)| Ok([key.as_str_lossy().into_owned(), text(value)?]));
            Ok(each.collect::<Result<Vec<_>, QueueError>>()?.into_iter().flatten().collect())
        }
        Value::Null => Ok(Vec::new()),
        other => array(other)?.iter().map(text).collect(),
    }
}

/// Parses the state of a poll; `None` if it was dropped, or can't be parsed.
fn poll_state(text: &str) -> Option<PollState> {
    if text == "sealed" {
        return Some(PollState::Sealed);
    }
    let (digest, closes_at) = match text.split_once(' ') {
        None => (text, None),
        Some((digest, at)) => (digest, Some(Timestamp::from_micros(at.parse().ok()?).ok()?)),
    };
    Some(PollState::Recorded { digest: digest.parse::<PollDigest>().ok()?, closes_at })
}

/// Parses a list of poll slugs.
pub(super) fn polls(reply: Value) -> Result<Vec<PollSlug>, QueueError> {
    let name =
        |name: String| name.parse().map_err(|_| unexpected("the slug of a poll", &name.as_str().into()));
    texts(reply)?.into_iter().map(name).collect()
}

/// Parses the ids of a replaced queue.
fn replaced_queue(value: Value) -> Result<ReplacedQueue, QueueError> {
    let fields = array(value)?;
    let [id, of] = <[Value; 2]>::try_from(fields)
        .map_err(|fields| unexpected("a replaced queue", &Value::Array(fields)))?;
    Ok(ReplacedQueue {
        id: text(&id)?.parse().map_err(|_| unexpected("the id of a replaced queue", &id))?,
        of: text(&of)?.parse().map_err(|_| unexpected("the id of an original queue", &of))?,
    })
}

pub(super) fn backlog(reply: Value, after: &[Position]) -> Result<Vec<Backlog>, QueueError> {
    let of_partition = |(value, after): (Value, &Position)| {
        let mut fields = array(value)?.into_iter();
        let (Some(last), Some(complete), Some(first)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(unexpected("the backlog of a partition", &Value::Array(fields.collect())));
        };
        let mut counters = Counters::new();
        for (poll, n) in pairs(Value::Array(fields.collect()))? {
            *counters.entry(poll_name(poll.into()).into_owned()).or_default() += n;
        }
        Ok(Backlog {
            end: if last.is_null() { *after } else { end(last)? },
            votes: counters,
            complete: complete.as_u64() == Some(1),
            oldest: if first.is_null() { None } else { appended_at(&first)? },
        })
    };
    array(reply)?.into_iter().zip(after).map(of_partition).collect()
}

/// Returns the time when an entry was appended; `None` if its id holds no valid time.
fn appended_at(id: &Value) -> Result<Option<Timestamp>, QueueError> {
    let micros = i64::try_from(entry::made_at(id)?).ok().and_then(|millis| millis.checked_mul(1000));
    Ok(micros.and_then(|micros| Timestamp::from_micros(micros).ok()))
}

pub(super) fn appended(reply: Value, frames: &[Frame]) -> Result<Vec<Appended>, QueueError> {
    let answer = |(value, frame): (&Value, &Frame)| match value {
        Value::Integer(0) => Ok(Appended::Sealed),
        Value::Integer(1) => Ok(Appended::UnknownPoll),
        Value::Integer(2) => Ok(Appended::DifferentDefinition),
        id => entry::position_of(frame, id).map(Appended::Stored),
    };
    let answers = array(reply)?;
    if answers.len() != frames.len() {
        return Err(unexpected("an answer for each frame", &Value::Array(answers)));
    }
    answers.iter().zip(frames).map(answer).collect()
}

pub(super) fn seal(reply: Value) -> Result<Seal, QueueError> {
    let mut seal = Seal { ends: Vec::new(), accepted: Vec::new() };
    let mut fields = array(reply)?.into_iter();
    while let (Some(last), Some(votes)) = (fields.next(), fields.next()) {
        seal.ends.push(end(last)?);
        seal.accepted.push(number(&votes)?);
    }
    Ok(seal)
}

pub(super) fn read(reply: Value, after: Position, limit: usize) -> Result<Read, QueueError> {
    let [found, accepted, server] = <[Value; 3]>::try_from(array(reply)?)
        .map_err(|fields| unexpected("a read", &Value::Array(fields)))?;
    let mut entries = array(found)?.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let is_current = !accepted.is_null();
    if is_current && after != Position::START {
        if entries.first().is_none_or(|first| !after.is_of(&first.position)) {
            return Err(QueueError::Diverged(after));
        }
        entries.remove(0);
    }
    let at_end = entries.len() <= limit;
    entries.truncate(limit);
    let accepted = if is_current && at_end { Some(counters(accepted)?) } else { None };
    Ok(Read { entries, at_end, accepted, server: text(&server)? })
}
