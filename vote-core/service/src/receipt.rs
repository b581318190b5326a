//! Receipts, which let voters find out later whether their votes were counted.
//!
//! A receipt is an encrypted token. Anyone who has it can ask the results service for the status of that vote; the
//! token itself looks random, and its length reveals neither the option nor the poll.
//!
//! A token is the base64url encoding of ciphertext and tag (16 bytes) of AES-256-GCM-SIV (RFC 8452) with the nonce 0. The
//! cipher tolerates a repeated nonce: then equal plaintexts have equal tokens, and nothing else shows. Equal plaintexts
//! are those of the same vote of the same voter. The probability that any two of a billion tokens share a part of their
//! key stream is about 10⁻¹⁹ (birthday bound for counters that begin at 127 random bits and run for 9 blocks). The
//! plaintext, with all integers big-endian:
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

use aes_gcm_siv::{Aes256GcmSiv, Nonce, aead::AeadInOut};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use vote_core::{
    OptionSlug, Partition, PollSlug, Position, QueueId, Secret, Timestamp, VoterKey, slug::MAX_SLUG,
};

const VERSION: u8 = 1;
const TAG: usize = 16;
/// Length of a plaintext without its position.
const FIXED: usize = 1 + 2 * (1 + MAX_SLUG) + 16 + 2 + 16 + 8;
/// Upper limit of the length of a token, in characters.
const MAX_TOKEN: usize = (FIXED + Position::MAX + TAG).div_ceil(3) * 4;

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
    cipher: Aes256GcmSiv,
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
        #[allow(clippy::expect_used)]
        let key = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("HMAC takes keys of any length");
        let key = key.chain_update(b"vote receipt: cipher, version 2").finalize();
        Self { cipher: Aes256GcmSiv::new(&key.into_bytes()) }
    }
}

impl ReceiptKey {
    /// Returns the token for a receipt: at most 210 letters, digits, `-` and `_`. Its length depends on the kind of
    /// queue only. The same receipt always has the same token.
    #[must_use]
    pub fn seal(&self, receipt: &Receipt) -> String {
        let mut bytes = encode(receipt);
        self.encrypt(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn encrypt(&self, bytes: &mut Vec<u8>) {
        #[allow(clippy::expect_used)]
        self.cipher
            .encrypt_in_place(&Nonce::default(), &[], bytes)
            .expect("the cipher takes up to 64 GB, this is under 200 bytes");
    }

    /// Returns the receipt that was sealed; `None` if the token is invalid or was sealed with another key.
    #[must_use]
    pub fn open(&self, token: &str) -> Option<Receipt> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        self.cipher.decrypt_in_place(&Nonce::default(), &[], &mut bytes).ok()?;
        decode(&bytes)
    }
}

fn encode(receipt: &Receipt) -> Vec<u8> {
    let Receipt { poll, queue, partition, position, voter, cast_at, option } = receipt;
    let mut plain = Vec::with_capacity(FIXED + Position::MAX + TAG);
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
    fn votes_that_differ_in_one_field_have_tokens_without_a_common_part() {
        let first = receipt("pets", "cats");
        let later = Receipt { cast_at: first.cast_at.saturating_add(1), ..first };
        let [first, later] = [first, later].map(|receipt| key(7).seal(&receipt));
        let same = first.bytes().zip(later.bytes()).filter(|(a, b)| a == b).count();
        // Of two random tokens, a 64th of the characters agree: 3 of 188.
        assert!(same < 25, "{first}\n{later}");
    }

    #[test]
    fn another_version_is_rejected() {
        let mut plain = encode(&receipt("pets", "cats"));
        assert!(decode(&plain).is_some());
        plain[0] = 2;
        assert_eq!(decode(&plain), None);
    }

    #[test]
    fn a_token_of_this_version_still_opens() {
        // Sealed by this version of the module: voters keep their tokens, so it must always open.
        assert_eq!(key(7).open(KEPT), Some(receipt("pets", "cats")));
        assert_eq!(key(7).seal(&receipt("pets", "cats")), KEPT);
    }
    const KEPT: &str = "tr7v-vZh3xtPa-M-y-HKHE9hIiz92K0aaewBjO2xVsHrOzXLGPGDTa4vkwSA5CStGbyaY9c5EVcpHWTlNaf8\
                        tirpcBp0P8bWwTLUOn8RZ3ywB-rEbOXPtcMEuMkrWATfYoIcjUz8tQvAQwdIiUu_h5qttbzBUbvjF83ioqr4\
                        iiUWShgej9WLgaIiW9qY";

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
