//! Identity of a queue.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::QueueError;

/// Identity of a queue: 128 random bits, so that no two queues ever share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct QueueId(pub [u8; 16]);

impl QueueId {
    /// Generates a new identity.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] if the operating system has no random numbers.
    pub fn random() -> Result<Self, QueueError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| {
            QueueError::Unavailable(format!("the operating system has no random numbers: {e}"))
        })?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({self})")
    }
}

impl FromStr for QueueId {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for QueueId {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
