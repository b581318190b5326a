//! The schedule of faults: a function of the seed and the command line alone.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};

use crate::fault::{Fault, Kind};

/// Maximum number of faults at a time.
pub(crate) const AT_A_TIME: usize = 3;
/// Time by which a fault is postponed while too many others, or one of its group, are active.
const STEP: Duration = Duration::from_millis(100);

/// Fault that is due at some time of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    /// Time from the start of the run.
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// Plans faults of these kinds, with the mean time `every` between them. Kinds are dealt like cards from a shuffled
/// deck, so that each comes equally often, except where one has to wait for its group.
pub(crate) fn plan(seed: u64, kinds: &[Kind], every: Duration, duration: Duration) -> Vec<Planned> {
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
    use clap::ValueEnum;

    use super::*;
    use crate::variant::Variant;

    const SECOND: Duration = Duration::from_secs(1);

    fn planned(seed: u64) -> Vec<Planned> {
        plan(seed, Kind::value_variants(), 3 * SECOND, 600 * SECOND)
    }

    #[test]
    fn the_seed_determines_the_plan() {
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
    fn one_fault_per_group_is_active_at_a_time() {
        let plan = planned(4);
        for (n, one) in plan.iter().enumerate() {
            let end = one.at + one.fault.length;
            let during: Vec<_> = plan[n + 1..].iter().filter(|other| other.at <= end).collect();
            assert!(during.iter().all(|other| other.fault.kind.group() != one.fault.kind.group()));
        }
    }

    #[test]
    fn a_minute_has_at_least_fifteen_faults() {
        for seed in 0..50 {
            let count = plan(seed, Kind::value_variants(), 3 * SECOND, 60 * SECOND).len();
            assert!(count >= 15, "seed {seed}: {count}");
        }
    }

    /// The rare kinds are those of clocks, files, replaced servers and rolled back stores.
    #[test]
    fn the_run_of_the_test_suite_has_the_rare_kinds() {
        let kinds = Variant::of(2566, &[]).kinds(&[]);
        let plan = plan(2566, &kinds, 2 * SECOND, 60 * SECOND);
        for kind in [
            Kind::ClockFrontend,
            Kind::ClockWorker,
            Kind::ClockResults,
            Kind::ClockPostgres,
            Kind::OldFileWorker,
            Kind::OtherFileWorker,
            Kind::OtherFileFrontend,
            Kind::PromoteReplica,
            Kind::RollBackPostgres,
        ] {
            let comes = plan.iter().any(|planned| planned.fault.kind == kind && planned.at < 50 * SECOND);
            assert!(comes, "{kind:?}");
        }
    }
}
