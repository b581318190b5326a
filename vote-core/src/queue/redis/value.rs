//! Values that Redis returns.

use std::borrow::Cow;

use fred::types::Value;

use crate::queue::QueueError;

/// Returns the error for a value that is not what was expected there, which it shows up to 200 bytes long.
pub(super) fn unexpected(what: &str, value: &Value) -> QueueError {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.floor_char_boundary(200));
    QueueError::Incompatible(format!("Redis returned {shown} where {what} was expected"))
}

pub(super) fn text(value: &Value) -> Result<String, QueueError> {
    value.as_string().ok_or_else(|| unexpected("a text", value))
}

pub(super) fn array(value: Value) -> Result<Vec<Value>, QueueError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected("a list", &other)),
    }
}

/// Turns the stored name of a poll into a text that every store can hold: no zero characters, and at most 64
/// characters in all. A valid slug stays as it is.
pub(super) fn poll_name(found: Cow<'_, str>) -> Cow<'_, str> {
    if found.len() <= 64 && !found.contains('\0') {
        return found;
    }
    found.chars().take(64).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
