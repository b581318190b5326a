//! Tests that every partition has an owner, however many there are.

use std::time::{Duration, Instant};

use crate::world::{Process, Setup, World, eventually};

fn owned(workers: &[&Process]) -> u64 {
    workers.iter().map(|worker| worker.metric("vote_worker_partitions_owned") as u64).sum()
}

/// Starts a pipeline with this number of partitions and two workers; also returns the time of the start.
fn start(partitions: &'static str) -> (World, [Process; 2], Instant) {
    let world = World::of(Setup { partitions: Some(partitions), ..Setup::default() });
    let start = Instant::now();
    let workers = [world.worker("2"), world.worker("2")];
    (world, workers, start)
}

/// The same, once all partitions are owned or 20 s are over. Another test asserts that all are owned in time.
fn settled(partitions: &'static str, count: u64) -> (World, [Process; 2]) {
    let (world, workers, start) = start(partitions);
    let [one, two] = &workers;
    while owned(&[one, two]) != count && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
    }
    (world, workers)
}

macro_rules! with_partitions {
    ($($name:ident = $count:literal;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn are_owned_within_10_seconds_of_the_start() {
                let (_world, [one, two], start) = start(stringify!($count));
                let within = Duration::from_secs(10).saturating_sub(start.elapsed());
                eventually("all partitions are owned", within, || owned(&[&one, &two]) == $count);
                println!("all partitions were owned after {:?}", start.elapsed());
            }

            #[test]
            fn are_owned_within_10_seconds_after_a_worker_was_killed() {
                let (_world, [killed, other]) = settled(stringify!($count), $count);
                killed.service.signal("KILL");
                let took = eventually("the other owns all", Duration::from_secs(10), || owned(&[&other]) == $count);
                println!("all partitions were owned after {took:?}");
            }

            #[test]
            fn are_owned_within_25_seconds_after_a_worker_was_frozen() {
                let (_world, [frozen, other]) = settled(stringify!($count), $count);
                frozen.service.signal("STOP");
                let took = eventually("the other owns all", Duration::from_secs(25), || owned(&[&other]) == $count);
                println!("all partitions were owned after {took:?}");
            }
        }
    )*};
}

with_partitions! {
    sixteen_partitions = 16;
    sixty_four_partitions = 64;
    two_hundred_and_fifty_six_partitions = 256;
    one_thousand_and_twenty_four_partitions = 1024;
}
