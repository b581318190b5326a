//! Decides whether a tally is possible: whether each voter can be assigned one of the contributions possible for that
//! voter so that their sum is the tally.
//!
//! It is not enough to check each option by itself: if a voter may have added to `a` or to `b`, a tally with neither,
//! or with both, is wrong although each count alone is possible. This is a transportation problem: groups of voters
//! with the same choices are the sources, the options and *no vote* are the sinks, and every voter goes to one sink.
//! The demand of *no vote* follows from the total of the tally, so all demands are known, and the tally is possible if
//! and only if a flow meets all of them (by the max-flow min-cut theorem).
//!
//! The flow is found by augmenting paths. The initial assignment sends every group to one of its sinks, which leaves
//! some sinks with too many voters and others with too few. Each step moves voters along the shortest chain of groups
//! from a sink with too many to a sink with too few, as many voters as the chain allows. Because the paths are shortest
//! ones, the number of steps is polynomial, whatever the numbers of voters (Edmonds and Karp, 1972).

use std::collections::{BTreeMap, VecDeque};

use crate::ballot::Choices;

/// Returns whether `tally` (votes by option) is possible for these groups: the number of voters by their choices.
pub(crate) fn possible(groups: &BTreeMap<Choices, u64>, tally: &[i64]) -> bool {
    let voters: i128 = groups.values().map(|n| i128::from(*n)).sum();
    let counted: i128 = tally.iter().map(|n| i128::from(*n)).sum();
    if counted > voters || tally.iter().any(|n| *n < 0) {
        return false;
    }
    // One sink for each option, and the last for no vote. Positive: too many voters there.
    let none = tally.len();
    let mut excess: Vec<i128> = tally.iter().map(|n| -i128::from(*n)).chain([counted - voters]).collect();
    let mut shares = Vec::with_capacity(groups.len());
    for (choices, n) in groups.iter().filter(|(_, n)| **n > 0) {
        let sinks: Vec<usize> = (0..none)
            .filter(|option| choices.contains(*option))
            .chain(choices.contains(Choices::NONE).then_some(none))
            .collect();
        let Some(start) = sinks.first() else { return false };
        let mut assigned = vec![0; none + 1];
        assigned[*start] = i128::from(*n);
        excess[*start] += assigned[*start];
        shares.push(Group { sinks, assigned });
    }
    while let Some(from) = excess.iter().position(|e| *e > 0) {
        let Some(path) = shortest(&shares, from, |sink| excess[sink] < 0) else { return false };
        let to = path.last().map_or(from, |step| step.to);
        let capacity = path.iter().map(|step| shares[step.group].assigned[step.from]).min().unwrap_or(0);
        let moved = capacity.min(excess[from]).min(-excess[to]);
        for step in path {
            shares[step.group].assigned[step.from] -= moved;
            shares[step.group].assigned[step.to] += moved;
        }
        excess[from] -= moved;
        excess[to] += moved;
    }
    // Every voter is assigned to a sink, so if no sink has too many voters, none has too few.
    true
}

/// Voters with the same choices, and how many of them are assigned to each sink.
struct Group {
    sinks: Vec<usize>,
    assigned: Vec<i128>,
}

/// Move of voters of one group from one sink to another.
#[derive(Clone, Copy)]
struct Step {
    from: usize,
    to: usize,
    group: usize,
}

/// Returns the shortest chain of moves from sink `from` to a sink for which `wanted` is true.
fn shortest(groups: &[Group], from: usize, wanted: impl Fn(usize) -> bool) -> Option<Vec<Step>> {
    let sinks = groups.first()?.assigned.len();
    let mut reached: Vec<Option<Step>> = vec![None; sinks];
    let mut next = VecDeque::from([from]);
    while let Some(at) = next.pop_front() {
        for (i, group) in groups.iter().enumerate().filter(|(_, group)| group.assigned[at] > 0) {
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
    fn a_known_vote_must_be_counted_exactly_once() {
        let groups = groups(&[(&[0], 3), (&[1], 2)]);
        assert!(possible(&groups, &[3, 2]));
        for wrong in [[2, 2], [3, 1], [4, 2], [3, 3], [2, 3], [4, 1], [-1, 6]] {
            assert!(!possible(&groups, &wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_unknown_vote_may_be_missing_from_the_tally() {
        let groups = groups(&[(&[0], 3), (&[0, NONE], 2)]);
        assert!((3..=5).all(|n| possible(&groups, &[n, 0])));
        assert!(![2, 6].into_iter().any(|n| possible(&groups, &[n, 0])));
        assert!(!possible(&groups, &[3, 1]));
    }

    #[test]
    fn counts_that_are_possible_alone_may_be_impossible_together() {
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
    fn without_voters_only_an_empty_tally_is_possible() {
        assert!(possible(&BTreeMap::new(), &[0, 0]));
        assert!(!possible(&BTreeMap::new(), &[0, 1]));
    }

    #[test]
    fn the_result_agrees_with_exhaustive_search() {
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
        // All pairs of 64 options, with 10^12 voters each and the same number of votes for every option.
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
