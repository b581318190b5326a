//! Receipts, which let voters find out later whether their votes were counted.
//!
//! A receipt is an encrypted token. Anyone who has it can ask the results service for the status of that vote; the
//! token itself looks random, and its length reveals neither the option nor the poll.
//!
//! A token is the base64url encoding of nonce (24 bytes), ciphertext and tag (16 bytes) of XChaCha20-Poly1305, whose
//! nonces are long enough to be drawn at random for any number of receipts. The plaintext, with all integers
//! big-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 + 32 | length of the poll's slug, the slug, zeros |
//! | 1 + 32 | length of the option's slug, the slug, zeros |
//! | 16 | queue |
//! | 2 | partition |
//! | 16 | voter's key |
//! | 8 | cast at, microseconds since 1970 |
//! | 0 to 32 | position: the rest, whose length depends on the kind of queue |

use std::{fmt, str, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use vote_core::{
    OptionSlug, Partition, PollSlug, Position, QueueId, Secret, Timestamp, VoterKey, slug::MAX_SLUG,
};

const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Length of a plaintext without its position.
const FIXED: usize = 1 + 2 * (1 + MAX_SLUG) + 16 + 2 + 16 + 8;
/// Upper limit of the length of a token, in characters.
const MAX_TOKEN: usize = (NONCE + FIXED + Position::MAX + TAG).div_ceil(3) * 4;

/// An accepted vote, and where it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Poll of the vote.
    pub poll: PollSlug,
    /// Queue that accepted the vote.
    pub queue: QueueId,
    /// Partition of the queue that holds the vote.
    pub partition: Partition,
    /// Position of the vote's frame in that partition.
    pub position: Position,
    /// Key of the voter.
    pub voter: VoterKey,
    /// Time of the vote, by the frontend's clock.
    pub cast_at: Timestamp,
    /// Option that was voted for.
    pub option: OptionSlug,
}

/// Key that seals and opens receipts. All frontends and results services need the same one.
#[derive(Clone)]
pub struct ReceiptKey {
    cipher: XChaCha20Poly1305,
    nonces: Hmac<Sha256>,
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptKey(…)")
    }
}

impl From<Secret> for ReceiptKey {
    fn from(secret: Secret) -> Self {
        // Derived rather than used as it is: the secret may be longer than the cipher's key, and other keys may be
        // derived from it later.
        let key = keyed(secret.expose()).chain_update(b"vote receipt: cipher, version 1").finalize();
        let nonces = keyed(secret.expose()).chain_update(b"vote receipt: nonces, version 1").finalize();
        Self { cipher: XChaCha20Poly1305::new(&key.into_bytes()), nonces: keyed(&nonces.into_bytes()) }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)]
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl ReceiptKey {
    /// Returns the token for a receipt: at most 243 letters, digits, `-` and `_`. Its length depends on the kind of
    /// queue only. Sealing a receipt twice returns two different tokens; both can be opened.
    #[must_use]
    pub fn seal(&self, receipt: &Receipt) -> String {
        let plain = encode(receipt);
        // If the operating system has no random numbers, the receipt must not be lost: a nonce derived from the content
        // is also safe, since the same nonce then occurs only with the same content.
        let nonce = XNonce::try_generate().unwrap_or_else(|_| self.derived_nonce(&plain));
        self.seal_with(&nonce, &plain)
    }

    /// Returns the receipt that was sealed; `None` if the token is invalid or was sealed with another key.
    #[must_use]
    pub fn open(&self, token: &str) -> Option<Receipt> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), Payload::from(sealed)).ok()?;
        decode(&plain)
    }

    fn seal_with(&self, nonce: &XNonce, plain: &[u8]) -> String {
        #[allow(clippy::expect_used)]
        let sealed = self
            .cipher
            .encrypt(nonce, plain)
            .expect("the cipher takes up to 256 GB, this is under 200 bytes");
        BASE64_URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
    }

    fn derived_nonce(&self, plain: &[u8]) -> XNonce {
        let hash = self.nonces.clone().chain_update(plain).finalize().into_bytes();
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&hash[..NONCE]);
        nonce.into()
    }
}

fn encode(receipt: &Receipt) -> Vec<u8> {
    let Receipt { poll, queue, partition, position, voter, cast_at, option } = receipt;
    let mut plain = Vec::with_capacity(FIXED + Position::MAX);
    plain.push(VERSION);
    for slug in [poll.as_str(), option.as_str()] {
        plain.push(slug.len() as u8);
        plain.extend_from_slice(slug.as_bytes());
        plain.resize(plain.len() + MAX_SLUG - slug.len(), 0);
    }
    plain.extend_from_slice(&queue.0);
    plain.extend_from_slice(&partition.0.to_be_bytes());
    plain.extend_from_slice(&voter.0);
    plain.extend_from_slice(&cast_at.as_micros().to_be_bytes());
    plain.extend_from_slice(position.as_bytes());
    plain
}

fn decode(plain: &[u8]) -> Option<Receipt> {
    let mut rest = plain;
    let [version] = *take::<1>(&mut rest)?;
    if version != VERSION {
        return None;
    }
    Some(Receipt {
        poll: take_slug(&mut rest)?,
        option: take_slug(&mut rest)?,
        queue: QueueId(*take(&mut rest)?),
        partition: Partition(u16::from_be_bytes(*take(&mut rest)?)),
        voter: VoterKey(*take(&mut rest)?),
        cast_at: Timestamp::from_micros(i64::from_be_bytes(*take(&mut rest)?)).ok()?,
        position: Position::from_bytes(rest)?,
    })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

fn take_slug<T: FromStr>(rest: &mut &[u8]) -> Option<T> {
    let [len] = *take::<1>(rest)?;
    let padded = take::<MAX_SLUG>(rest)?;
    str::from_utf8(padded.get(..usize::from(len))?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> ReceiptKey {
        Secret::new(vec![byte; 32]).unwrap().into()
    }

    fn receipt(poll: &str, option: &str) -> Receipt {
        Receipt {
            poll: poll.parse().unwrap(),
            queue: QueueId([1; 16]),
            partition: Partition(1023),
            position: Position::from_bytes(&[2; 16]).unwrap(),
            voter: VoterKey([3; 16]),
            cast_at: Timestamp::from_micros(1_770_595_200_000_000).unwrap(),
            option: option.parse().unwrap(),
        }
    }

    #[test]
    fn a_token_with_any_bit_changed_is_rejected() {
        let token = key(7).seal(&receipt("pets", "cats"));
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(7).open(&BASE64_URL_SAFE_NO_PAD.encode(&changed)), None, "bit {bit}");
        }
        assert!(key(7).open(&token).is_some());
    }

    #[test]
    fn a_shortened_or_lengthened_token_is_rejected() {
        let token = key(7).seal(&receipt("pets", "cats"));
        for len in 0..token.len() {
            assert_eq!(key(7).open(&token[..len]), None, "{len} characters");
        }
        for more in ["A", "=", " ", "\n"] {
            assert_eq!(key(7).open(&format!("{token}{more}")), None, "{more:?} appended");
        }
    }

    #[test]
    fn a_token_of_another_key_is_rejected() {
        assert_eq!(key(8).open(&key(7).seal(&receipt("pets", "cats"))), None);
    }

    #[test]
    fn the_length_reveals_neither_poll_nor_option() {
        let longest = "x".repeat(MAX_SLUG);
        let lengths = [("a", "b"), ("pets", "cats"), (&longest, &longest)]
            .map(|(poll, option)| key(7).seal(&receipt(poll, option)).len());
        assert_eq!(lengths, [lengths[0]; 3]);
    }

    #[test]
    fn two_tokens_of_one_receipt_differ_and_both_open() {
        let [a, b] = [(); 2].map(|()| key(7).seal(&receipt("pets", "cats")));
        assert_ne!(a, b);
        assert_eq!(key(7).open(&a), key(7).open(&b));
    }

    #[test]
    fn without_random_numbers_nonces_are_derived_from_the_content() {
        let [cats, dogs] = ["cats", "dogs"].map(|option| encode(&receipt("pets", option)));
        assert_ne!(key(7).derived_nonce(&cats), key(7).derived_nonce(&dogs));
        let token = key(7).seal_with(&key(7).derived_nonce(&cats), &cats);
        assert_eq!(key(7).open(&token), Some(receipt("pets", "cats")));
    }

    #[test]
    fn another_version_is_rejected() {
        let mut plain = encode(&receipt("pets", "cats"));
        assert!(decode(&plain).is_some());
        plain[0] = 2;
        assert_eq!(decode(&plain), None);
    }

    #[test]
    fn a_token_of_the_first_version_still_opens() {
        // Sealed by the first version of this module: voters keep their tokens, so it must always open.
        assert_eq!(key(7).open(KEPT), Some(receipt("pets", "cats")));
    }
    const KEPT: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJP-6RjsqZboar5lFHMGbGHhslk_4c9ITbxEfJjHsYjXHNTFGVESRziOCc\
                        -o_JwJv51ddVTX1oy5ThOGb74eNxyIta28ul3ygRBI1GemrOv7SuEPNJtGwU6YdDT-7Guyg0ud3x4DDUA3LhIK_L\
                        PRZerZopJbGq_e9lo_bp6lcvzVNuiVTA012Cu0jMWdMc";

    proptest! {
        #[test]
        fn a_sealed_receipt_opens(
            poll in "[a-z0-9-]{1,32}", option in "[a-z0-9-]{1,32}", queue: [u8; 16], partition: u16,
            voter: [u8; 16], position in prop::collection::vec(any::<u8>(), 0..=Position::MAX),
            micros in Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros(),
        ) {
            let receipt = Receipt {
                queue: QueueId(queue),
                partition: Partition(partition),
                voter: VoterKey(voter),
                position: Position::from_bytes(&position).unwrap(),
                cast_at: Timestamp::from_micros(micros).unwrap(),
                ..receipt(&poll, &option)
            };
            let token = key(7).seal(&receipt);
            prop_assert!(token.len() <= MAX_TOKEN);
            prop_assert_eq!(key(7).open(&token), Some(receipt));
        }

        #[test]
        fn garbage_is_rejected(text: String, bytes: Vec<u8>) {
            prop_assert_eq!(key(7).open(&text), None);
            prop_assert_eq!(key(7).open(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)), None);
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
