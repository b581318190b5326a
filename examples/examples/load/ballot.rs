//! What is known of one voter after voting, and what the voter can therefore add to the tally.
//!
//! The rules that this rests on are those of the frontends: `cast_at` is later than the one in the cookie that came
//! with the vote, and every answer, also a 503, brings a cookie with the latest `cast_at` given out. So a vote is later
//! than all those whose answers its voter has seen. It need not be later than one that got no answer: a frontend that
//! was stopped may take that one from its socket when it goes on, long after the voter went elsewhere.

use vote_core::Keep;

/// What came of one try to cast a vote with a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    /// 202: it is stored.
    Acked,
    /// It may be stored, and if so, whatever this voter casts later is later.
    Unknown,
    /// It may be stored, now or some time on: no answer, or one without a cookie.
    Stray,
    /// 4xx: it is not stored.
    Refused,
}

/// How a vote ended, all tries taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked,
    Unknown,
    Refused,
    /// No frontend ever had it.
    Unsent,
}

/// All tries of one vote. They name the same option, so only these facts matter.
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

    pub(crate) fn fate(self) -> Fate {
        match self {
            Self { acked: true, .. } => Fate::Acked,
            Self { unknown: true, .. } | Self { stray: true, .. } => Fate::Unknown,
            Self { refused: true, .. } => Fate::Refused,
            _ => Fate::Unsent,
        }
    }
}

/// The votes of one voter. There is a second one only after the first was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ballot {
    pub(crate) first: (usize, Tries),
    pub(crate) second: Option<(usize, Tries)>,
}

/// A set of the contributions that a voter can make: one vote for one of some options, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choices(u128);

impl Choices {
    /// In the place of an option: no vote.
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

    /// How many contributions are possible.
    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }
}

impl Ballot {
    /// The option that stands if nothing but acknowledged votes was stored.
    pub(crate) fn acknowledged(&self, keep: Keep) -> Option<usize> {
        let acked = |(option, tries): (usize, Tries)| (tries.fate() == Fate::Acked).then_some(option);
        let (first, second) = (acked(self.first), self.second.and_then(acked));
        match keep {
            Keep::First => first.or(second),
            Keep::Last => second.or(first),
        }
    }

    /// What this voter can add to the tally, over all subsets of the unknown tries that may be stored.
    pub(crate) fn choices(&self, keep: Keep) -> Choices {
        let (a, first) = self.first;
        match (first.fate(), keep, self.second) {
            (Fate::Refused | Fate::Unsent, _, _) => Choices::one(Choices::NONE),
            (Fate::Unknown, _, _) => Choices::one(a).or(Choices::NONE),
            // Whatever came of the second vote, it is later than the acknowledged one.
            (Fate::Acked, Keep::First, _) | (Fate::Acked, Keep::Last, None) => Choices::one(a),
            (Fate::Acked, Keep::Last, Some((b, second))) => match second.fate() {
                Fate::Refused | Fate::Unsent => Choices::one(a),
                Fate::Unknown => Choices::one(a).or(b),
                // The first vote may have been stored once more, and later than the second.
                Fate::Acked if first.stray => Choices::one(a).or(b),
                Fate::Acked => Choices::one(b),
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

    /// All courses that one vote can take in up to three tries: the last one ends it if it is an answer.
    fn courses() -> Vec<Vec<Try>> {
        let mut courses = vec![vec![]];
        let mut open = vec![vec![]];
        for _ in 0..3 {
            let mut longer = Vec::new();
            for course in &open {
                for tried in ALL {
                    let course: Vec<Try> = course.iter().copied().chain([tried]).collect();
                    courses.push(course.clone());
                    if matches!(tried, Try::Unknown | Try::Stray) {
                        longer.push(course);
                    }
                }
            }
            open = longer;
        }
        courses
    }

    /// What can stand, by trying every way in which the tries may have been stored: each acknowledged one at its time,
    /// each unknown one at its time or never, each stray one at its time, after everything else, or never.
    fn simulated(keep: Keep, a: &[Try], b: Option<&[Try]>) -> BTreeSet<usize> {
        let votes: Vec<(usize, Try)> =
            a.iter().map(|t| (0, *t)).chain(b.into_iter().flatten().map(|t| (1, *t))).collect();
        let mut standing = BTreeSet::new();
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
                let stands = match keep {
                    Keep::First => log.iter().min(),
                    Keep::Last => log.iter().max(),
                };
                standing.insert(stands.map_or(Choices::NONE, |(_, option)| *option));
            }
        }
        standing
    }

    fn set(choices: Choices) -> BTreeSet<usize> {
        (0..128).filter(|option| choices.contains(*option)).collect()
    }

    #[test]
    fn choices_are_what_trying_all_possible_worlds_finds() {
        for keep in [Keep::First, Keep::Last] {
            for a in courses() {
                let first = (0, tries(&a));
                let ballot = Ballot { first, second: None };
                assert_eq!(set(ballot.choices(keep)), simulated(keep, &a, None), "{keep:?} {a:?}");
                if first.1.fate() != Fate::Acked {
                    continue;
                }
                for b in courses() {
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
    fn an_acknowledgement_outweighs_the_tries_before_it() {
        assert_eq!(tries(&[Try::Stray, Try::Unknown, Try::Acked]).fate(), Fate::Acked);
    }

    #[test]
    fn a_refusal_after_an_unknown_try_leaves_it_unknown() {
        assert_eq!(tries(&[Try::Unknown, Try::Refused]).fate(), Fate::Unknown);
        assert_eq!(tries(&[Try::Refused]).fate(), Fate::Refused);
        assert_eq!(tries(&[]).fate(), Fate::Unsent);
    }
}
