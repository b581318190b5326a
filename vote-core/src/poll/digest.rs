//! Digest of a poll's definition, on which a frontend and the store must agree before a vote of the poll is stored.

use std::{collections::BTreeSet, fmt, str::FromStr};

use sha2::{Digest, Sha256};

use super::{Keep, Poll, Voters};
use crate::{OptionSlug, PollSlug, count::RegisteredPoll};

/// First text of the encoding. It names the version, so that no later version can produce the same bytes.
const VERSION: &str = "vote poll 1";

/// Digest of what decides how the votes of a poll are counted: its slug, the set of its options, `keep` and `voters`.
///
/// Titles, labels, times and the order of options may change while votes are coming in, so they are not part of it.
///
/// It is the first 16 bytes of the SHA-256 of the following texts, each preceded by its length in bytes as a 16-bit
/// big-endian number: `vote poll 1`, the slug, `keep` and `voters` as in `polls.toml`, and the slugs of the options in
/// byte order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PollDigest(pub [u8; 16]);

impl PollDigest {
    /// Computes the digest of a poll with these properties. The order of `options` does not matter.
    pub fn of(
        slug: PollSlug,
        options: impl IntoIterator<Item = OptionSlug>,
        keep: Keep,
        voters: Voters,
    ) -> Self {
        let mut hasher = Sha256::new();
        let mut add = |text: &str| {
            // All texts are far shorter than 64 KiB.
            hasher.update((text.len() as u16).to_be_bytes());
            hasher.update(text);
        };
        for text in [VERSION, slug.as_str(), keep.as_str(), voters.as_str()] {
            add(text);
        }
        let options: BTreeSet<String> = options.into_iter().map(String::from).collect();
        options.iter().for_each(|option| add(option));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize()[..16]);
        Self(bytes)
    }
}

impl Poll {
    /// Computes the digest of the poll as this file defines it.
    #[must_use]
    pub fn digest(&self) -> PollDigest {
        PollDigest::of(self.slug, self.options.iter().map(|option| option.slug), self.keep, self.voters)
    }
}

impl RegisteredPoll {
    /// Computes the digest of the poll as registered in the store.
    ///
    /// It equals the digest of a [`Poll`] exactly if there is no [difference](Self::difference).
    #[must_use]
    pub fn digest(&self) -> PollDigest {
        PollDigest::of(self.slug, self.options.iter().copied(), self.keep, self.voters)
    }
}

impl fmt::Display for PollDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PollDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PollDigest({self})")
    }
}

impl FromStr for PollDigest {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Polls;

    fn pets() -> Poll {
        Polls::example().get("pets").unwrap().clone()
    }

    /// Queues store digests, so these must never change.
    #[test]
    fn digests_of_version_1_never_change() {
        assert_eq!(pets().digest().to_string(), "f574a7f77d89a44f450ddb263ddcda06");
        let last = Poll { keep: Keep::Last, ..pets() };
        assert_eq!(last.digest().to_string(), "66cec57fc542f06e8715761ca8e575f5");
    }

    #[test]
    fn titles_labels_order_and_times_do_not_change_the_digest() {
        let mut poll = pets();
        poll.title = "Dogs or cats?".to_owned();
        poll.options[0].label = "Felines".to_owned();
        poll.options.reverse();
        poll.closes_at = Some(crate::Timestamp::MIN);
        poll.results = crate::poll::ResultsFrom::AfterClose;
        assert_eq!(poll.digest(), pets().digest());
        assert_eq!(RegisteredPoll::from(&poll).digest(), pets().digest());
    }

    #[test]
    fn whatever_affects_the_count_changes_the_digest() {
        let renamed = Poll { slug: "pet".parse().unwrap(), ..pets() };
        let mut fewer = pets();
        fewer.options.pop();
        let mut other = pets();
        other.options[0].slug = "birds".parse().unwrap();
        let last = Poll { keep: Keep::Last, ..pets() };
        let digests: BTreeSet<_> = [pets(), renamed, fewer, other, last].iter().map(Poll::digest).collect();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn a_digest_survives_its_text_form() {
        let digest = pets().digest();
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("abc".parse::<PollDigest>().is_err());
    }
}
