//! Slugs, the names of polls and options: 1 to 32 characters of `a-z`, `0-9` and `-`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Maximum number of characters of a slug.
pub const MAX_SLUG: usize = 32;

/// A text that is not a slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a slug: use 1 to 32 characters of a-z, 0-9 and '-'")]
pub struct SlugError {
    text: String,
}

/// Bytes of a slug, stored inline: copying one does not allocate, which matters when there are millions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Inline {
    bytes: [u8; MAX_SLUG],
    len: u8,
}

impl Inline {
    fn parse(text: &str) -> Result<Self, SlugError> {
        let ok = (1..=MAX_SLUG).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !ok {
            // The text may come from an attacker and be long; the error message is shortened.
            return Err(SlugError { text: text.chars().take(64).collect() });
        }
        let mut bytes = [0; MAX_SLUG];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn as_str(&self) -> &str {
        // Never the default: `parse` accepts ASCII only.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Inline);

        impl $name {
            /// Returns the slug as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = SlugError;
            fn from_str(text: &str) -> Result<Self, SlugError> {
                Inline::parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SlugError;
            fn try_from(text: String) -> Result<Self, SlugError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(slug: $name) -> Self {
                slug.as_str().to_owned()
            }
        }

        // The order of the text, which is the order of its bytes. It is part of the merge rule.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.0.as_bytes().cmp(other.0.as_bytes())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

slug! {
    /// Name of a poll, as in its URL: `pets` in `/polls/pets`.
    PollSlug
}
slug! {
    /// Name of an option of a poll, as in a vote: `cats`.
    OptionSlug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_slugs_are_accepted() {
        for ok in ["a", "cats", "0-9", &"x".repeat(32)] {
            assert_eq!(ok.parse::<PollSlug>().unwrap().as_str(), ok);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "Cats", "a b", "ä", "a/b", &"x".repeat(33)] {
            assert!(bad.parse::<PollSlug>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slugs_are_ordered_by_text() {
        let (short, long): (OptionSlug, OptionSlug) = ("b".parse().unwrap(), "aa".parse().unwrap());
        assert!(long < short);
    }
}
