//! What is known about the votes of one voter, and what the voter can therefore add to the tally.
//!
//! This relies on two rules of the frontends: the `cast_at` of a vote is later than the one in the cookie that came
//! with it, and every answer, including a 503, sets a cookie with the latest `cast_at` given to the voter. So a vote is
//! later than all earlier votes whose answers its voter has received. It need not be later than a vote without an
//! answer: a frontend that was stopped may read that vote from its socket when it continues, long after the voter went
//! to another frontend.

use vote_core::Keep;

/// Outcome of one attempt to cast a vote with a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    /// 202: the vote is stored.
    Acked,
    /// The vote may be stored; if it is, every later vote of this voter has a later `cast_at`.
    Unknown,
    /// The vote may be stored now or at any later time: there was no answer, or one without a cookie.
    Stray,
    /// 4xx: the vote is not stored.
    Refused,
}

/// Outcome of a vote over all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiptStatus {
    Acked,
    Unknown,
    Refused,
    /// The vote never reached a frontend.
    Unsent,
}

/// All attempts of one vote. They are for the same option, so only the set of their outcomes matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    acked: bool,
    unknown: bool,
    stray: bool,
    refused: bool,
}

impl Tries {
    pub(crate) fn add(&mut self, tried: Try) {
        match tried {
            Try::Acked => self.acked = true,
            Try::Unknown => self.unknown = true,
            Try::Stray => self.stray = true,
            Try::Refused => self.refused = true,
        }
    }

    pub(crate) fn fate(self) -> ReceiptStatus {
        match self {
            Self { acked: true, .. } => ReceiptStatus::Acked,
            Self { unknown: true, .. } | Self { stray: true, .. } => ReceiptStatus::Unknown,
            Self { refused: true, .. } => ReceiptStatus::Refused,
            _ => ReceiptStatus::Unsent,
        }
    }
}

/// Votes of one voter, each an option and its attempts. The second is cast only after the first was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ballot {
    pub(crate) first: (usize, Tries),
    pub(crate) second: Option<(usize, Tries)>,
}

/// Set of the contributions that a voter can make to the tally: a vote for one of these options, or no vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choices(u128);

impl Choices {
    /// Stands for no vote, in place of an option.
    pub(crate) const NONE: usize = 127;

    pub(crate) const fn one(option: usize) -> Self {
        Self(1 << option)
    }

    pub(crate) const fn or(self, option: usize) -> Self {
        Self(self.0 | 1 << option)
    }

    pub(crate) const fn contains(self, option: usize) -> bool {
        self.0 >> option & 1 == 1
    }

    /// Returns the number of possible contributions.
    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }
}

impl Ballot {
    /// Returns the option of the effective ballot if only acknowledged votes were stored.
    pub(crate) fn acknowledged(&self, keep: Keep) -> Option<usize> {
        let acked =
            |(option, tries): (usize, Tries)| (tries.fate() == ReceiptStatus::Acked).then_some(option);
        let (first, second) = (acked(self.first), self.second.and_then(acked));
        match keep {
            Keep::First => first.or(second),
            Keep::Last => second.or(first),
        }
    }

    /// Returns what this voter can add to the tally, over all subsets of the unknown attempts that may be stored.
    pub(crate) fn choices(&self, keep: Keep) -> Choices {
        let (a, first) = self.first;
        match (first.fate(), keep, self.second) {
            (ReceiptStatus::Refused | ReceiptStatus::Unsent, _, _) => Choices::one(Choices::NONE),
            (ReceiptStatus::Unknown, _, _) => Choices::one(a).or(Choices::NONE),
            // Whatever the outcome of the second vote, it is later than the acknowledged one.
            (ReceiptStatus::Acked, Keep::First, _) | (ReceiptStatus::Acked, Keep::Last, None) => {
                Choices::one(a)
            }
            (ReceiptStatus::Acked, Keep::Last, Some((b, second))) => match second.fate() {
                ReceiptStatus::Refused | ReceiptStatus::Unsent => Choices::one(a),
                ReceiptStatus::Unknown => Choices::one(a).or(b),
                // A stray attempt of the first vote may have been stored later than the second vote.
                ReceiptStatus::Acked if first.stray => Choices::one(a).or(b),
                ReceiptStatus::Acked => Choices::one(b),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [Try; 4] = [Try::Acked, Try::Unknown, Try::Stray, Try::Refused];

    fn tries(of: &[Try]) -> Tries {
        let mut tries = Tries::default();
        of.iter().for_each(|tried| tries.add(*tried));
        tries
    }

    /// All sequences of up to three attempts of one vote. An acknowledgement or a refusal ends a sequence.
    fn sequences() -> Vec<Vec<Try>> {
        let mut sequences = vec![vec![]];
        let mut open = vec![vec![]];
        for _ in 0..3 {
            let mut longer = Vec::new();
            for sequence in &open {
                for tried in ALL {
                    let sequence: Vec<Try> = sequence.iter().copied().chain([tried]).collect();
                    sequences.push(sequence.clone());
                    if matches!(tried, Try::Unknown | Try::Stray) {
                        longer.push(sequence);
                    }
                }
            }
            open = longer;
        }
        sequences
    }

    /// Options that can be effective, found by enumerating every way in which the attempts may have been stored: an
    /// acknowledged one at its time, an unknown one at its time or never, a stray one at its time, after everything
    /// else, or never.
    fn simulated(keep: Keep, a: &[Try], b: Option<&[Try]>) -> BTreeSet<usize> {
        let votes: Vec<(usize, Try)> =
            a.iter().map(|t| (0, *t)).chain(b.into_iter().flatten().map(|t| (1, *t))).collect();
        let mut effective = BTreeSet::new();
        for world in 0..3_usize.pow(votes.len() as u32) {
            let mut log: Vec<(usize, usize)> = Vec::new();
            let mut possible = true;
            for (i, (option, tried)) in votes.iter().enumerate() {
                let way = world / 3_usize.pow(i as u32) % 3;
                match (tried, way) {
                    (Try::Acked, 1) | (Try::Unknown | Try::Stray, 1) => log.push((i, *option)),
                    (Try::Stray, 2) => log.push((100 + i, *option)),
                    (Try::Refused | Try::Unknown | Try::Stray, 0) => {}
                    _ => possible = false,
                }
            }
            if possible {
                let picked = match keep {
                    Keep::First => log.iter().min(),
                    Keep::Last => log.iter().max(),
                };
                effective.insert(picked.map_or(Choices::NONE, |(_, option)| *option));
            }
        }
        effective
    }

    fn set(choices: Choices) -> BTreeSet<usize> {
        (0..128).filter(|option| choices.contains(*option)).collect()
    }

    #[test]
    fn choices_agree_with_exhaustive_search() {
        for keep in [Keep::First, Keep::Last] {
            for a in sequences() {
                let first = (0, tries(&a));
                let ballot = Ballot { first, second: None };
                assert_eq!(set(ballot.choices(keep)), simulated(keep, &a, None), "{keep:?} {a:?}");
                if first.1.fate() != ReceiptStatus::Acked {
                    continue;
                }
                for b in sequences() {
                    let ballot = Ballot { first, second: Some((1, tries(&b))) };
                    let expected = simulated(keep, &a, Some(&b));
                    assert_eq!(set(ballot.choices(keep)), expected, "{keep:?} {a:?} {b:?}");
                    let acked = ballot.acknowledged(keep).unwrap_or(Choices::NONE);
                    assert!(expected.contains(&acked), "{keep:?} {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn an_acknowledgement_decides_whatever_the_attempts_before_it() {
        assert_eq!(tries(&[Try::Stray, Try::Unknown, Try::Acked]).fate(), ReceiptStatus::Acked);
    }

    #[test]
    fn a_refusal_after_an_unknown_attempt_leaves_the_vote_unknown() {
        assert_eq!(tries(&[Try::Unknown, Try::Refused]).fate(), ReceiptStatus::Unknown);
        assert_eq!(tries(&[Try::Refused]).fate(), ReceiptStatus::Refused);
        assert_eq!(tries(&[]).fate(), ReceiptStatus::Unsent);
    }
}
