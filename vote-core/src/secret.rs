//! Secrets: at least 32 bytes, given as hex, never printed.

use std::fmt;

use zeroize::Zeroizing;

/// Minimum number of bytes of a secret.
pub const MIN_SECRET: usize = 32;

/// Secret bytes. `Debug` does not show them, and they are wiped from memory on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a secret cannot be used. The message never shows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Not an even number of hex digits.
    #[error("not hex: give an even number of digits 0-9 and a-f, such as `openssl rand -hex 32` prints")]
    NotHex,
    /// Shorter than [`MIN_SECRET`] bytes.
    #[error("{0} bytes are too few: give at least 32, such as `openssl rand -hex 32` prints")]
    TooShort(usize),
}

impl Secret {
    /// Creates a secret from bytes.
    ///
    /// # Errors
    /// Fails if there are fewer than 32 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() < MIN_SECRET { Err(SecretError::TooShort(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// Parses a secret from hex digits.
    ///
    /// White space around them is ignored, such as the line break at the end of a file.
    ///
    /// # Errors
    /// Fails if `text` is not hex or has fewer than 32 bytes.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        Self::new(hex::decode(text.trim()).map_err(|_| SecretError::NotHex)?)
    }

    /// Returns the bytes, for use in a cryptographic function.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::from_hex(&"ab".repeat(32)).unwrap();
        assert!(!format!("{secret:?}").contains("ab"));
    }

    #[test]
    fn a_secret_is_hex_and_long_enough() {
        assert_eq!(Secret::from_hex("abcd").unwrap_err(), SecretError::TooShort(2));
        assert_eq!(Secret::from_hex("xyz").unwrap_err(), SecretError::NotHex);
    }
}
