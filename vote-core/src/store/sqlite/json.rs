//! JSON texts by which statements get lists.

use std::fmt::Write;

/// Returns a JSON array of the items.
pub(super) fn json<T>(items: &[T], element: impl Fn(&T) -> String) -> String {
    let mut text = String::from("[");
    for (i, item) in items.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{}", element(item));
    }
    text.push(']');
    text
}
