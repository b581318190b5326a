//! Voter keys: keyed hashes of voter ids, which identify voters without revealing them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    PollSlug,
    secret::{Secret, SecretError},
};

/// Key of a voter in one poll: the first 16 bytes of HMAC-SHA256(pepper, poll ‖ 0 ‖ voter id).
///
/// Without the pepper, keys of two polls cannot be linked, and the id cannot be found from the key. With 100 million
/// voters, the probability that any two share a key is about 10⁻²³ (birthday bound for 128 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoterKey(pub [u8; 16]);

impl VoterKey {
    /// Returns the bytes. Their order is the order of partitions and of the store's primary key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for VoterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for VoterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VoterKey({self})")
    }
}

/// Secret that turns voter ids into voter keys.
///
/// It must stay the same for the life of its polls: with another one, every voter would be a new voter and could vote
/// again.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

/// Fingerprint of a pepper, which distinguishes peppers without revealing them.
///
/// It is stored in each queue and in the store, so that a frontend with another pepper is detected before its votes are
/// counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PepperFingerprint(pub [u8; 8]);

impl Pepper {
    /// Creates a pepper from secret bytes.
    ///
    /// # Errors
    /// Fails if there are fewer than 32 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        Secret::new(bytes).map(Self::from)
    }

    /// Computes the key of a voter in a poll.
    #[must_use]
    pub fn voter_key(&self, poll: PollSlug, voter_id: &[u8]) -> VoterKey {
        VoterKey(self.hash(&[poll.as_str().as_bytes(), &[0], voter_id]))
    }

    /// Computes the fingerprint, which does not reveal the pepper.
    #[must_use]
    pub fn fingerprint(&self) -> PepperFingerprint {
        // No slug has an upper-case letter, so no voter key is the hash of this text.
        let hash = self.hash(&[b"Pepper fingerprint"]);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash[..8]);
        PepperFingerprint(bytes)
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        let digest = mac.finalize().into_bytes();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        first
    }
}

impl From<Secret> for Pepper {
    fn from(secret: Secret) -> Self {
        // HMAC accepts keys of any length, so the error cannot occur. Any fallback would produce wrong voter keys.
        #[allow(clippy::expect_used)]
        Self(Hmac::new_from_slice(secret.expose()).expect("HMAC takes keys of any length"))
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

impl fmt::Display for PepperFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PepperFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PepperFingerprint({self})")
    }
}

impl std::str::FromStr for PepperFingerprint {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pepper(byte: u8) -> Pepper {
        Pepper::new(vec![byte; 32]).unwrap()
    }

    #[test]
    fn a_key_is_the_first_half_of_the_hmac() {
        // printf 'pets\0alice' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
        let key = pepper(7).voter_key("pets".parse().unwrap(), b"alice");
        assert_eq!(key.to_string(), EXPECTED);
    }
    const EXPECTED: &str = "0e3eaeb09c88bfe575e71b6e03bb6328";

    #[test]
    fn keys_differ_by_poll_voter_and_pepper() {
        let (pets, cars) = ("pets".parse().unwrap(), "cars".parse().unwrap());
        let key = pepper(7).voter_key(pets, b"alice");
        assert_ne!(key, pepper(7).voter_key(cars, b"alice"));
        assert_ne!(key, pepper(7).voter_key(pets, b"bob"));
        assert_ne!(key, pepper(8).voter_key(pets, b"alice"));
    }

    #[test]
    fn different_peppers_have_different_fingerprints() {
        assert_eq!(pepper(7).fingerprint(), pepper(7).fingerprint());
        assert_ne!(pepper(7).fingerprint(), pepper(8).fingerprint());
    }
}
