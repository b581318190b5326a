//! Which fault comes when: a function of the seed and the command line alone.

use std::time::Duration;

use clap::ValueEnum;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};

use crate::fault::{Fault, Kind};

/// The most faults at a time.
pub(crate) const AT_A_TIME: usize = 3;
/// How much later a fault is tried again for which there is no room.
const STEP: Duration = Duration::from_millis(100);

/// A fault, and when it is due, from the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// Faults of these kinds, or of all if there is none, one every so often on average. Kinds are dealt like cards from
/// a shuffled deck, so that each comes as often as any other, but for those that have to wait for their group.
pub(crate) fn plan(seed: u64, only: &[Kind], every: Duration, duration: Duration) -> Vec<Planned> {
    let kinds = if only.is_empty() { Kind::value_variants() } else { only };
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut plan, mut deck): (Vec<Planned>, Vec<Kind>) = (Vec::new(), Vec::new());
    let mut pause = || every.mul_f64(rng.random_range(0.5..1.5));
    let mut at = pause();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(!seed);
    while at < duration {
        if deck.is_empty() {
            deck.extend_from_slice(kinds);
            deck.shuffle(&mut rng);
        }
        let active: Vec<_> = plan.iter().filter(|planned| planned.at + planned.fault.length >= at).collect();
        let free = |kind: &Kind| !active.iter().any(|planned| planned.fault.kind.group() == kind.group());
        match deck.iter().rposition(free).filter(|_| active.len() < AT_A_TIME) {
            Some(place) => {
                plan.push(Planned { at, fault: Fault::new(deck.remove(place), &mut rng) });
                at += pause();
            }
            None => at += STEP,
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn planned(seed: u64) -> Vec<Planned> {
        plan(seed, &[], 3 * SECOND, 600 * SECOND)
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(format!("{:?}", planned(1)), format!("{:?}", planned(1)));
        assert_ne!(format!("{:?}", planned(1)), format!("{:?}", planned(2)));
    }

    #[test]
    fn all_kinds_come_about_equally_often() {
        let plan = planned(3);
        let times = |kind: &Kind| plan.iter().filter(|planned| planned.fault.kind == *kind).count();
        let times: Vec<usize> = Kind::value_variants().iter().map(times).collect();
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*least > 3 && most - least <= 1, "{times:?}");
    }

    #[test]
    fn of_one_group_one_fault_is_active_at_a_time() {
        let plan = planned(4);
        for (n, one) in plan.iter().enumerate() {
            let end = one.at + one.fault.length;
            let during: Vec<_> = plan[n + 1..].iter().filter(|other| other.at <= end).collect();
            assert!(during.iter().all(|other| other.fault.kind.group() != one.fault.kind.group()));
        }
    }

    #[test]
    fn a_minute_has_room_for_fifteen_faults() {
        for seed in 0..50 {
            let count = plan(seed, &[], 3 * SECOND, 60 * SECOND).len();
            assert!(count >= 15, "seed {seed}: {count}");
        }
    }
}
