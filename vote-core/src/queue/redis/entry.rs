//! Stream entries and their positions.

use fred::types::Value;

use super::value::{array, poll_name, text, unexpected};
use crate::queue::{Entry, Frame, Position, QueueError};

/// Returns the two numbers of a stream entry's id as the order number of a position.
fn order(id: &Value) -> Result<[u8; 16], QueueError> {
    let text = text(id)?;
    let parts =
        text.split_once('-').and_then(|(ms, seq)| Some((ms.parse::<u64>().ok()?, seq.parse::<u64>().ok()?)));
    let (ms, seq) = parts.ok_or_else(|| unexpected("the id of an entry", id))?;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&ms.to_be_bytes());
    bytes[8..].copy_from_slice(&seq.to_be_bytes());
    Ok(bytes)
}

/// Returns the time when Redis made an entry, in milliseconds since 1970; its id begins with it.
pub(super) fn made_at(id: &Value) -> Result<u64, QueueError> {
    Ok(u64::from_be_bytes(order(id)?.first_chunk().copied().unwrap_or_default()))
}

/// Returns the position of a frame that was stored under an id.
pub(super) fn position_of(frame: &Frame, id: &Value) -> Result<Position, QueueError> {
    position(order(id)?, frame.poll.as_str(), frame.votes.into(), &frame.bytes)
}

fn position(order: [u8; 16], poll: &str, votes: u64, frame: &[u8]) -> Result<Position, QueueError> {
    Position::of_entry(&order, poll, votes, frame)
        .ok_or_else(|| QueueError::Incompatible("the id of an entry is too long for a position".to_owned()))
}

/// Returns the stream entry's id of a position; `None` for the start.
pub(super) fn id(position: Position) -> Option<String> {
    let (ms, seq) = position.as_bytes().split_first_chunk::<8>()?;
    let seq = seq.first_chunk::<8>()?;
    Some(format!("{}-{}", u64::from_be_bytes(*ms), u64::from_be_bytes(*seq)))
}

/// Parses a stream entry as stored. What is missing, or is not a number where it should be, is left empty, so that the
/// entry gets quarantined.
pub(super) fn entry(value: Value) -> Result<Entry, QueueError> {
    let pair = array(value)?;
    let [id, fields] = pair.as_slice() else { return Err(unexpected("an entry", &Value::Array(pair))) };
    let fields = if fields.is_null() { Vec::new() } else { array(fields.clone())? };
    let mut fields = fields.into_iter();
    let mut next = || fields.next().and_then(Value::into_bytes).unwrap_or_default();
    let (name, mut frame) = (next(), next());
    let digits = frame.iter().position(|byte| *byte == b' ').unwrap_or_default();
    let votes = std::str::from_utf8(&frame[..digits]).ok().and_then(|digits| digits.parse::<u64>().ok());
    if votes.is_some() {
        frame = frame.slice(digits + 1..);
    }
    // No frame has nearly that many votes; a damaged number must not overflow sums.
    let votes = votes.unwrap_or_default().min(u64::from(u32::MAX));
    let poll = poll_name(String::from_utf8_lossy(&name)).into_owned();
    Ok(Entry { position: position(order(id)?, &poll, votes, &frame)?, poll, votes, frame })
}

/// Returns the position of the last entry of a partition, [`Position::START`] if there is none.
pub(super) fn end(last: Value) -> Result<Position, QueueError> {
    if last.is_null() { Ok(Position::START) } else { entry(last).map(|last| last.position) }
}
