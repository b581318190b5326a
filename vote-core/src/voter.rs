//! Who voted, without knowing who: a keyed hash of the voter's id.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    PollSlug,
    secret::{Secret, SecretError},
};

/// A voter in one poll: the first 16 bytes of HMAC-SHA256(pepper, poll ‖ 0 ‖ voter id).
///
/// Keys of two polls can't be linked, and the id can't be found from the key without the pepper. At 100 million
/// voters the chance that any two share a key is about 10⁻²³ (birthday bound on 128 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoterKey(pub [u8; 16]);

impl VoterKey {
    /// The bytes; their order is the order of partitions and of the store's primary key.
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

/// The secret that turns voter ids into keys. It stays the same for the life of its polls: with another one every
/// voter would be new and could vote again.
#[derive(Debug, Clone)]
pub struct Pepper(Secret);

/// Tells two peppers apart without telling what they are: written into each queue and into the store, so that a
/// frontend with another pepper is noticed before its votes are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PepperFingerprint(pub [u8; 8]);

impl Pepper {
    /// # Errors
    /// With fewer than 32 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        Secret::new(bytes).map(Self)
    }

    /// The key of a voter in a poll.
    #[must_use]
    pub fn voter_key(&self, poll: PollSlug, voter_id: &[u8]) -> VoterKey {
        VoterKey(self.hash(&[poll.as_str().as_bytes(), &[0], voter_id]))
    }

    /// What may be known of the pepper.
    #[must_use]
    pub fn fingerprint(&self) -> PepperFingerprint {
        // An upper-case letter is in no slug, so this is the hash of no voter.
        let hash = self.hash(&[b"Pepper fingerprint"]);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash[..8]);
        PepperFingerprint(bytes)
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 16] {
        // HMAC takes a key of any length, so the error never occurs; a wrong fallback would be a wrong key.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).expect("HMAC takes keys of any length");
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
        Self(secret)
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
    fn fingerprints_tell_peppers_apart() {
        assert_eq!(pepper(7).fingerprint(), pepper(7).fingerprint());
        assert_ne!(pepper(7).fingerprint(), pepper(8).fingerprint());
    }
}
