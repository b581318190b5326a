//! Values that Redis returns.

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
