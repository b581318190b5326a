//! What arrives on an event stream.

/// Marks the number of votes in an event.
const TOTAL: &[u8] = b"\"total\":";
/// The end of an event.
const END: &[u8] = b"\n\n";

/// Bytes of a stream that are not a complete event yet.
#[derive(Debug, Default)]
pub(crate) struct Events {
    rest: Vec<u8>,
}

impl Events {
    /// Adds bytes that have arrived, and returns the number of votes in the last event that is complete now, if one is.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Option<u64> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.windows(END.len()).rposition(|window| window == END)?;
        let total = total(&self.rest[..end]);
        self.rest.drain(..end + END.len());
        // Streams are idle most of the time, and there are many.
        self.rest.shrink_to(0);
        total
    }
}

/// Returns the last number of votes in these bytes.
fn total(events: &[u8]) -> Option<u64> {
    let at = events.windows(TOTAL.len()).rposition(|window| window == TOTAL)?;
    let digits = events[at + TOTAL.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let value = |value: u64, digit: &u8| value.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    digits.copied().collect::<Vec<_>>().iter().try_fold(0, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_votes_is_found_wherever_the_bytes_are_split() {
        let stream = b"HTTP/1.1 200 OK\r\n\r\nretry: 1\n\nevent: results\ndata: {\"total\":12,\"x\":1}\n\n";
        for split in 0..stream.len() {
            let mut events = Events::default();
            let found = [events.add(&stream[..split]), events.add(&stream[split..])];
            assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), [12], "split at {split}");
        }
    }

    #[test]
    fn a_comment_is_no_event() {
        let mut events = Events::default();
        assert_eq!(events.add(b": still here\n\n"), None);
        assert_eq!(events.add(b"event: results\ndata: {\"total\":3}\n\n"), Some(3));
    }
}
