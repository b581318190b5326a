//! Whether every voter can be given one of the contributions possible for them so that a given tally comes out.
//!
//! Looking at each option by itself is not enough: if a voter can have added to `a` or to `b`, then a tally with
//! neither, or with both, is wrong though either count alone is possible. So this decides the transportation problem:
//! groups of voters with the same choices are the sources, the options and *no vote* are the sinks, and every voter
//! goes to one sink. How many go to *no vote* follows from the tally's total, so all demands are known, and the tally is
//! possible exactly if a flow meets all of them (which is what makes this exact, by max-flow min-cut).
//!
//! The flow is found by augmenting paths. A start that gives every group wholly to one of its sinks leaves some sinks
//! with too many voters and others with too few; a voter moves from sink to sink along the shortest chain of groups that
//! leads from one of the former to one of the latter, as many at once as the chain allows. Shortest paths make
//! the number of steps polynomial whatever the numbers of voters (Edmonds and Karp, 1972).

use std::collections::{BTreeMap, VecDeque};

use crate::ballot::Choices;

/// Whether `tally` (votes by option) is possible for voters with these choices, by group.
pub(crate) fn possible(groups: &BTreeMap<Choices, u64>, tally: &[i64]) -> bool {
    let voters: i128 = groups.values().map(|n| i128::from(*n)).sum();
    let counted: i128 = tally.iter().map(|n| i128::from(*n)).sum();
    if counted > voters || tally.iter().any(|n| *n < 0) {
        return false;
    }
    // One sink an option, and the last for no vote. Positive: too many voters there.
    let none = tally.len();
    let mut excess: Vec<i128> = tally.iter().map(|n| -i128::from(*n)).chain([counted - voters]).collect();
    let mut shares = Vec::with_capacity(groups.len());
    for (choices, n) in groups.iter().filter(|(_, n)| **n > 0) {
        let sinks: Vec<usize> = (0..none)
            .filter(|option| choices.contains(*option))
            .chain(choices.contains(Choices::NONE).then_some(none))
            .collect();
        let Some(start) = sinks.first() else { return false };
        let mut held = vec![0; none + 1];
        held[*start] = i128::from(*n);
        excess[*start] += held[*start];
        shares.push(Group { sinks, held });
    }
    while let Some(from) = excess.iter().position(|e| *e > 0) {
        let Some(path) = shortest(&shares, from, |sink| excess[sink] < 0) else { return false };
        let to = path.last().map_or(from, |step| step.to);
        let room = path.iter().map(|step| shares[step.group].held[step.from]).min().unwrap_or(0);
        let moved = room.min(excess[from]).min(-excess[to]);
        for step in path {
            shares[step.group].held[step.from] -= moved;
            shares[step.group].held[step.to] += moved;
        }
        excess[from] -= moved;
        excess[to] += moved;
    }
    // Every voter is somewhere, so nothing too much is nothing too little.
    true
}

/// Voters with the same choices: how many of them go to each sink.
struct Group {
    sinks: Vec<usize>,
    held: Vec<i128>,
}

/// Voters of one group moving from one sink to another.
#[derive(Clone, Copy)]
struct Step {
    from: usize,
    to: usize,
    group: usize,
}

/// The shortest chain of moves from sink `from` to one that is wanted.
fn shortest(groups: &[Group], from: usize, wanted: impl Fn(usize) -> bool) -> Option<Vec<Step>> {
    let sinks = groups.first()?.held.len();
    let mut reached: Vec<Option<Step>> = vec![None; sinks];
    let mut next = VecDeque::from([from]);
    while let Some(at) = next.pop_front() {
        for (i, group) in groups.iter().enumerate().filter(|(_, group)| group.held[at] > 0) {
            for &to in &group.sinks {
                if to == from || reached[to].is_some() {
                    continue;
                }
                reached[to] = Some(Step { from: at, to, group: i });
                if wanted(to) {
                    let back = std::iter::successors(reached[to], |step| reached[step.from]);
                    let mut path: Vec<Step> = back.collect();
                    path.reverse();
                    return Some(path);
                }
                next.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    fn choices(of: &[usize]) -> Choices {
        of[1..].iter().fold(Choices::one(of[0]), |choices, option| choices.or(*option))
    }

    fn groups(of: &[(&[usize], u64)]) -> BTreeMap<Choices, u64> {
        of.iter().map(|(options, n)| (choices(options), *n)).collect()
    }

    const NONE: usize = Choices::NONE;

    #[test]
    fn a_known_vote_must_be_there_once() {
        let groups = groups(&[(&[0], 3), (&[1], 2)]);
        assert!(possible(&groups, &[3, 2]));
        for wrong in [[2, 2], [3, 1], [4, 2], [3, 3], [2, 3], [4, 1], [-1, 6]] {
            assert!(!possible(&groups, &wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_unknown_vote_may_be_missing() {
        let groups = groups(&[(&[0], 3), (&[0, NONE], 2)]);
        assert!((3..=5).all(|n| possible(&groups, &[n, 0])));
        assert!(![2, 6].into_iter().any(|n| possible(&groups, &[n, 0])));
        assert!(!possible(&groups, &[3, 1]));
    }

    #[test]
    fn counts_that_are_possible_each_alone_need_not_be_so_together() {
        let groups = groups(&[(&[0, 1], 1)]);
        assert!(possible(&groups, &[1, 0]) && possible(&groups, &[0, 1]));
        assert!(!possible(&groups, &[0, 0]) && !possible(&groups, &[1, 1]));
    }

    #[test]
    fn a_missing_vote_is_not_hidden_by_an_unknown_one_for_another_option() {
        let groups = groups(&[(&[0], 5), (&[1, NONE], 1)]);
        assert!(!possible(&groups, &[4, 1]));
    }

    #[test]
    fn voters_move_along_chains_of_groups() {
        let groups = groups(&[(&[0, 1], 10), (&[1, 2], 10), (&[2, 3], 10)]);
        assert!(possible(&groups, &[0, 10, 10, 10]) && possible(&groups, &[10, 10, 10, 0]));
        assert!(!possible(&groups, &[0, 9, 10, 11]));
    }

    #[test]
    fn nobody_voted() {
        assert!(possible(&BTreeMap::new(), &[0, 0]));
        assert!(!possible(&BTreeMap::new(), &[0, 1]));
    }

    #[test]
    fn it_agrees_with_trying_everything() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for _ in 0..400 {
            let options = rng.random_range(2..=4);
            let voters: Vec<Choices> = (0..rng.random_range(0..=5))
                .map(|_| {
                    let mut any: Vec<usize> = (0..options).filter(|_| rng.random_bool(0.4)).collect();
                    if any.is_empty() || rng.random_bool(0.3) {
                        any.push(NONE);
                    }
                    choices(&any)
                })
                .collect();
            let mut tallies = BTreeSet::from([vec![0_i64; options]]);
            for voter in &voters {
                let before = std::mem::take(&mut tallies);
                for tally in before {
                    if voter.contains(NONE) {
                        tallies.insert(tally.clone());
                    }
                    for option in (0..options).filter(|option| voter.contains(*option)) {
                        let mut more = tally.clone();
                        more[option] += 1;
                        tallies.insert(more);
                    }
                }
            }
            let mut groups = BTreeMap::new();
            voters.iter().for_each(|voter| *groups.entry(*voter).or_default() += 1);
            for number in 0..7_usize.pow(options as u32) {
                let tally: Vec<i64> =
                    (0..options).map(|o| (number / 7_usize.pow(o as u32) % 7) as i64).collect();
                assert_eq!(possible(&groups, &tally), tallies.contains(&tally), "{groups:?} {tally:?}");
            }
        }
    }

    #[test]
    fn the_work_does_not_grow_with_the_number_of_voters() {
        // All pairs of 64 options, a million million voters each, every option equally liked.
        let pairs = (0..64_usize).flat_map(|a| (a + 1..64).map(move |b| choices(&[a, b])));
        let groups: BTreeMap<Choices, u64> = pairs.map(|pair| (pair, 1_000_000_000_000)).collect();
        let each = 63 * 1_000_000_000_000 / 2;
        let mut tally = vec![each; 64];
        assert!(possible(&groups, &tally));
        tally[5] += 1;
        assert!(!possible(&groups, &tally));
        tally[6] -= 1;
        assert!(possible(&groups, &tally));
    }
}
