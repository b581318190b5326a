//! Each kind of evidence of a loss, and the nearest case that is none. The tests of the whole pipeline show the same with
//! real servers: `diverged.rs`, `promotion.rs` and `restore.rs` in `examples/tools/tests/it`.

use std::sync::Arc;

use vote_core::{
    Partitions, PepperFingerprint, Polls, Position,
    count::{QueueRecord, RegisteredPoll},
    queue::{Counters, LAYOUT_VERSION, Layout, LayoutMismatch, PollState, QueueClock},
};

use super::*;

pub(super) const ADDRESS: &str = "redis://one";
const HERE: Place<'static> = Place { address: ADDRESS, fixed: true };
const QUEUE: QueueId = QueueId([1; 16]);
const OTHER: QueueId = QueueId([2; 16]);

pub(super) fn layout() -> Layout {
    Layout { partitions: Partitions::new(2).unwrap(), fingerprint: PepperFingerprint([7; 8]) }
}

/// Returns the status of an active queue that counts this many votes for poll `pets` in each partition.
pub(super) fn status(id: QueueId, server: &str, votes: [u64; 2]) -> QueueStatus {
    QueueStatus {
        id,
        version: LAYOUT_VERSION,
        layout: layout(),
        active: true,
        server: server.to_owned(),
        is_replica: false,
        accepted: (0..).zip(votes).map(|(partition, votes)| (Partition(partition), "pets", votes)).collect(),
        entries: vec![1, 1],
        polls: BTreeMap::new(),
        replaced: Vec::new(),
        clock: QueueClock { now: Timestamp::MIN, ahead: None },
    }
}

/// Returns the record of a queue that reported this many votes for poll `pets`.
pub(super) fn record(id: QueueId, votes: u64, ends: Vec<Position>) -> QueueRecord {
    let accepted = Counters::from([("pets".to_owned(), votes)]);
    QueueRecord { accepted, ends, ..QueueRecord::new(id, ADDRESS.to_owned(), Timestamp::MIN) }
}

pub(super) fn catalog(records: impl IntoIterator<Item = QueueRecord>) -> Catalog {
    let records: Vec<QueueRecord> = records.into_iter().collect();
    let is_read = |record: &&QueueRecord| record.state == QueueState::Active && record.original_id.is_none();
    Catalog {
        taken_at: Timestamp::MIN,
        version: 0,
        revision: 0,
        queues: Arc::new(records.iter().map(|record| (record.id, record.into())).collect()),
        polls: Arc::default(),
        dropped: Arc::default(),
        sealed: BTreeSet::new(),
        late: records.iter().filter(is_read).map(|record| (record.id, record.seen_at)).collect(),
        workers: BTreeMap::new(),
    }
}

pub(super) const BOTH: [Partition; 2] = [Partition(0), Partition(1)];

/// Returns the answer to a look at both partitions of a queue with this status.
pub(super) fn look_at(status: &QueueStatus) -> Look {
    Look {
        id: status.id,
        server: status.server.clone(),
        is_replica: status.is_replica,
        accepted: BOTH.iter().map(|partition| status.accepted.in_partition(*partition)).collect(),
    }
}

pub(super) fn ended(state: QueueState, reason: &str) -> QueueRecord {
    QueueRecord { state, reason: reason.to_owned(), ..record(QUEUE, 0, Vec::new()) }
}

pub(super) fn position(n: u8) -> Position {
    Position::from_bytes(&[n]).unwrap()
}

pub(super) fn slug() -> PollSlug {
    Polls::example().get("pets").unwrap().slug
}

/// Returns the memory of a monitor that has seen and reported a queue with this status.
pub(super) fn seen(status: &QueueStatus, now: Instant) -> Memory {
    let mut memory = Memory::default();
    memory.end_check(status.id, status.server.clone(), None);
    look(&mut memory, status, &catalog([]));
    memory.observe(status, true, HERE, &catalog([]), now);
    memory.record_inspection(status, 0, now);
    memory.record_report(now);
    memory
}

fn look(memory: &mut Memory, status: &QueueStatus, catalog: &Catalog) -> Option<Evidence> {
    memory.observe_look(&look_at(status), &BOTH, catalog);
    memory.divergence(status.id)
}

#[test]
fn a_count_that_falls_is_a_loss() {
    let now = Instant::now();
    let mut memory = seen(&status(QUEUE, "a", [5, 5]), now);
    let fallen = look(&mut memory, &status(QUEUE, "a", [4, 9]), &catalog([]));
    assert_eq!(fallen, Some(Evidence::CountFell), "although another partition counts more");
}

#[test]
fn a_count_of_one_poll_that_falls_is_a_loss_although_that_of_another_grows() {
    let now = Instant::now();
    let here = status(QUEUE, "a", [5, 5]);
    let mut memory = seen(&here, now);
    let counts = BOTH.into_iter().flat_map(|partition| [(partition, "pets", 4), (partition, "snack", 1)]);
    let fallen = QueueStatus { accepted: counts.collect(), ..here };
    memory.observe(&fallen, true, HERE, &catalog([]), now);
    assert_eq!(memory.divergence(QUEUE), Some(Evidence::CountFell));
}

#[test]
fn a_count_that_is_missing_is_a_loss() {
    let now = Instant::now();
    let mut memory = seen(&status(QUEUE, "a", [5, 5]), now);
    let mut without = status(QUEUE, "a", [5, 5]);
    without.accepted = [(Partition(0), "pets", 5)].into_iter().collect();
    assert_eq!(look(&mut memory, &without, &catalog([])), Some(Evidence::CountFell));
}

#[test]
fn a_count_that_stays_or_grows_is_no_loss() {
    let now = Instant::now();
    let mut memory = seen(&status(QUEUE, "a", [5, 5]), now);
    for votes in [[5, 5], [6, 5]] {
        assert_eq!(look(&mut memory, &status(QUEUE, "a", votes), &catalog([])), None);
    }
}

#[test]
fn the_count_of_another_queue_is_not_compared() {
    let now = Instant::now();
    let mut memory = seen(&status(QUEUE, "a", [5, 5]), now);
    let other = status(OTHER, "a", [0, 0]);
    assert!(memory.is_new(other.id, &other.server));
    memory.start_check();
    memory.end_check(OTHER, "a".to_owned(), None);
    assert_eq!(look(&mut memory, &other, &catalog([])), None);
}

#[test]
fn a_queue_is_checked_when_it_or_its_server_is_new() {
    let memory = seen(&status(QUEUE, "a", [5, 5]), Instant::now());
    assert!(!memory.is_new(QUEUE, "a"));
    assert!(memory.is_new(QUEUE, "b"));
    assert!(memory.is_new(OTHER, "a"));
    assert!(Memory::default().is_new(QUEUE, "a"));
    let mut memory = memory;
    memory.forget();
    assert!(memory.is_new(QUEUE, "a"), "as after a replica was promoted");
}

/// As of a replica that lagged under load: later votes have made up for the count.
#[test]
fn an_entry_that_is_gone_and_was_never_read_is_a_loss() {
    let evidence = Evidence::EntryGone { partition: Partition(1), end: position(9) };
    assert_eq!(evidence_if_gone(Partition(1), position(9), position(8)), Some(evidence.clone()));
    let mut memory = Memory::default();
    memory.start_check();
    memory.end_check(QUEUE, "b".to_owned(), Some(evidence.clone()));
    let many = status(QUEUE, "b", [90, 90]);
    assert_eq!(look(&mut memory, &many, &catalog([])), Some(evidence));
}

#[test]
fn a_queue_that_others_recorded_as_ended_is_replaced() {
    let here = status(QUEUE, "a", [5, 5]);
    let mut memory = seen(&here, Instant::now());
    let ended = catalog([ended(QueueState::Retired, "its disk is gone")]);
    assert_eq!(look(&mut memory, &here, &ended), Some(Evidence::Recorded("its disk is gone".to_owned())));
}

#[test]
fn a_queue_that_is_recorded_as_active_or_not_at_all_is_read() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    for catalog in [catalog([record(QUEUE, 10, Vec::new())]), catalog([])] {
        assert_eq!(look(&mut seen(&here, now), &here, &catalog), None);
    }
}

#[test]
fn what_is_recorded_does_not_replace_what_the_monitor_found_itself() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let mut memory = seen(&here, now);
    let ended = catalog([ended(QueueState::Diverged, "another worker said so")]);
    let fallen = look(&mut memory, &status(QUEUE, "a", [5, 4]), &ended);
    assert_eq!(fallen, Some(Evidence::CountFell));
}

/// As after a restore of the store, or of a queue whose entries were read before: only a read shows the loss.
#[test]
fn what_a_lane_found_is_a_loss_of_the_queue_that_it_read() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let evidence = || Evidence::Read("partition 0 counts 5 votes for poll pets, but 3 were read".to_owned());
    let mut memory = seen(&here, now);
    memory.record_divergence(QUEUE, evidence());
    assert_eq!(look(&mut memory, &here, &catalog([])), Some(evidence()));
    let mut memory = seen(&here, now);
    memory.record_divergence(OTHER, evidence());
    assert_eq!(look(&mut memory, &here, &catalog([])), None, "that queue was replaced meanwhile");
}

#[test]
fn a_queue_that_two_servers_have_is_a_copy_at_both() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let mut memory = seen(&here, now);
    let evidence = Evidence::Copied { address: "redis://two".to_owned() };
    let copy = || Err(ClaimError::Copy("redis://two".to_owned()));
    assert_eq!(memory.apply_claim(QUEUE, copy(), now), Err(Obstacle::Diverged(evidence.clone())));
    assert_eq!(look(&mut memory, &here, &catalog([])), Some(evidence));
}

#[test]
fn a_queue_that_may_have_moved_here_is_not_read_and_has_lost_nothing() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let mut memory = seen(&here, now);
    let unclear = || Err(ClaimError::Unclear("redis://two".to_owned()));
    let waits = Err(Obstacle::Unclear { address: "redis://two".to_owned() });
    assert_eq!(memory.conflict_since(QUEUE), None);
    assert_eq!(memory.apply_claim(QUEUE, unclear(), now), waits);
    assert_eq!(memory.apply_claim(QUEUE, unclear(), now + VANISHED_AFTER), waits);
    assert_eq!(memory.conflict_since(QUEUE), Some(now), "the first answer counts");
    assert_eq!(look(&mut memory, &here, &catalog([])), None);
    assert_eq!(memory.apply_claim(QUEUE, Ok(()), now), Ok(()));
    assert_eq!(memory.conflict_since(QUEUE), None, "the other server no longer has it");
}

#[test]
fn a_conflict_about_another_queue_says_nothing() {
    let now = Instant::now();
    let mut memory = Memory::default();
    assert!(memory.apply_claim(QUEUE, Err(ClaimError::Unclear("redis://two".to_owned())), now).is_err());
    assert_eq!(memory.conflict_since(OTHER), None);
    assert_eq!(memory.conflict_since(QUEUE), None, "it is over");
}

#[test]
fn a_queue_that_is_read_at_another_address_has_lost_nothing() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let mut memory = seen(&here, now);
    let claimed = memory.apply_claim(QUEUE, Err(ClaimError::Here("redis://two".to_owned())), now);
    assert_eq!(claimed, Err(Obstacle::ReadElsewhere { address: "redis://two".to_owned() }));
    assert_eq!(look(&mut memory, &here, &catalog([])), None);
}

/// Looks at another queue at an address, whose former queue is recorded like this, and again after `VANISHED_AFTER`.
fn vanished(place: Place<'_>, [before, after]: [QueueRecord; 2]) -> Vec<QueueId> {
    let (now, other) = (Instant::now(), status(OTHER, "b", [0, 0]));
    let mut memory = Memory::default();
    let almost = VANISHED_AFTER - Duration::from_millis(1);
    assert_eq!(memory.observe(&other, true, place, &catalog([before.clone()]), now), []);
    assert_eq!(memory.observe(&other, true, place, &catalog([before]), now + almost), []);
    memory.observe(&other, true, place, &catalog([after]), now + VANISHED_AFTER)
}

/// As of a server that comes back empty.
#[test]
fn a_queue_whose_server_has_another_one_for_some_time_is_lost() {
    let lost = record(QUEUE, 5, Vec::new());
    assert_eq!(vanished(HERE, [lost.clone(), lost]), [QUEUE]);
}

#[test]
fn a_queue_that_a_worker_has_seen_elsewhere_is_not_lost() {
    let before = record(QUEUE, 5, Vec::new());
    let seen_at = before.seen_at.saturating_add(1);
    let moved = QueueRecord { address: "redis://two".to_owned(), seen_at, ..before.clone() };
    assert_eq!(vanished(HERE, [before.clone(), moved]), []);
    assert_eq!(vanished(HERE, [before.clone(), QueueRecord { seen_at, ..before }]), []);
}

#[test]
fn a_queue_behind_a_name_is_not_lost_because_another_one_has_its_address() {
    let lost = record(QUEUE, 5, Vec::new());
    assert_eq!(vanished(Place { fixed: false, ..HERE }, [lost.clone(), lost]), []);
}

#[test]
fn replaced_and_ended_queues_do_not_vanish() {
    let replaced = QueueRecord { original_id: Some(OTHER), ..record(QUEUE, 0, Vec::new()) };
    assert_eq!(vanished(HERE, [replaced.clone(), replaced]), []);
    let retired = ended(QueueState::Retired, "retired");
    assert_eq!(vanished(HERE, [retired.clone(), retired]), []);
}

/// As by a frontend that knows of votes that its queue lost, and no worker does.
#[test]
fn a_queue_that_its_server_lists_as_replaced_is_lost() {
    assert!(is_read(QUEUE, &catalog([record(QUEUE, 5, Vec::new())])));
}

#[test]
fn a_replaced_queue_that_has_ended_or_was_never_recorded_is_not_lost_again() {
    assert!(!is_read(QUEUE, &catalog([ended(QueueState::Diverged, "known")])));
    assert!(!is_read(QUEUE, &catalog([record(OTHER, 5, Vec::new())])));
}

#[test]
fn a_loss_that_a_seal_shows_is_a_loss_of_the_queue() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let evidence = Evidence::LessThanSealed { partition: Partition(1), poll: slug(), now: 4, before: 5 };
    let mut memory = seen(&here, now);
    memory.record_seal_check(QUEUE, slug(), Some(evidence.clone()));
    assert_eq!(look(&mut memory, &here, &catalog([])), Some(evidence));
    let mut memory = seen(&here, now);
    memory.record_seal_check(QUEUE, slug(), None);
    assert_eq!(look(&mut memory, &here, &catalog([])), None);
}

#[test]
fn a_queue_is_sealed_until_queue_and_store_know_it_and_compared_once() {
    let closed = RegisteredPoll {
        closed_at: Some(Timestamp::MIN),
        ..RegisteredPoll::from(Polls::example().get("pets").unwrap())
    };
    let open = RegisteredPoll { closed_at: None, ..closed.clone() };
    let with = |poll: &RegisteredPoll, known: bool| Catalog {
        polls: Arc::new(vec![poll.clone()]),
        sealed: known.then_some((QUEUE, poll.slug)).into_iter().collect(),
        ..catalog([])
    };
    let unsealed = status(QUEUE, "a", [5, 5]);
    let sealed = QueueStatus { polls: [(closed.slug, PollState::Sealed)].into(), ..unsealed.clone() };
    let mut memory = seen(&unsealed, Instant::now());
    assert_eq!(memory.to_seal(&unsealed, &with(&open, false)), []);
    assert_eq!(memory.to_seal(&sealed, &with(&closed, true)), [closed.slug], "not compared yet");
    memory.record_seal_check(QUEUE, closed.slug, None);
    assert_eq!(memory.to_seal(&sealed, &with(&closed, true)), []);
    assert_eq!(memory.to_seal(&unsealed, &with(&closed, true)), [closed.slug], "the queue lost it");
    assert_eq!(memory.to_seal(&sealed, &with(&closed, false)), [closed.slug], "the store lost it");
    memory.start_check();
    assert_eq!(memory.to_seal(&sealed, &with(&closed, true)), [closed.slug], "the server is new");
    let is_final = RegisteredPoll { final_at: Some(Timestamp::MIN), ..closed.clone() };
    assert_eq!(memory.to_seal(&sealed, &with(&is_final, false)), []);
    assert_eq!(memory.to_seal(&unsealed, &with(&is_final, false)), [closed.slug]);
}

#[test]
fn a_queue_that_diverged_is_not_read_until_it_is_replaced() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let mut memory = seen(&here, now);
    memory.record_divergence(QUEUE, Evidence::CountFell);
    for _ in 0..2 {
        let divergence = look(&mut memory, &here, &catalog([]));
        assert_eq!(divergence, Some(Evidence::CountFell), "its replacement failed");
    }
    memory.record_replacement();
    assert_eq!(memory.divergence(QUEUE), None);
}

#[test]
fn a_queue_is_activated_before_it_is_read() {
    let active = status(QUEUE, "a", [5, 5]);
    let inactive = QueueStatus { active: false, ..active.clone() };
    let inspection = |role, report| Inspection { role, is_due: true, report };
    let [reporting, keeping, observing] =
        [(Role::Reporter, true), (Role::Reporter, false), (Role::Observer, false)]
            .map(|(r, b)| inspection(r, b));
    let keep = |report, compare_clocks| NextStep::Keep { report, compare_clocks };
    assert_eq!(next_step(&inactive, reporting, true), NextStep::Activate);
    assert_eq!(next_step(&active, keeping, false), keep(false, false));
    assert_eq!(next_step(&active, reporting, false), keep(true, true));
    assert_eq!(next_step(&active, reporting, true), keep(true, false));
    assert_eq!(next_step(&inactive, observing, true), NextStep::Nothing, "another worker activates it");
}

#[test]
fn a_queue_that_does_not_fit_this_worker_is_not_read() {
    let fits = status(QUEUE, "a", [5, 5]);
    assert_eq!(compatible(&fits, layout()), Ok(()));
    let replica = QueueStatus { is_replica: true, ..fits.clone() };
    assert_eq!(compatible(&replica, layout()), Err(Obstacle::Replica));
    let newer = QueueStatus { version: LAYOUT_VERSION + 1, ..fits.clone() };
    assert_eq!(
        compatible(&newer, layout()),
        Err(Obstacle::Mismatch(LayoutMismatch::Version { found: LAYOUT_VERSION + 1 }))
    );
    let partitions = Partitions::new(4).unwrap();
    assert_eq!(
        compatible(&fits, Layout { partitions, ..layout() }),
        Err(Obstacle::Mismatch(LayoutMismatch::Partitions {
            found: layout().partitions,
            expected: partitions
        }))
    );
    let fingerprint = PepperFingerprint([8; 8]);
    assert_eq!(
        compatible(&fits, Layout { fingerprint, ..layout() }),
        Err(Obstacle::Mismatch(LayoutMismatch::Pepper {
            found: layout().fingerprint,
            expected: fingerprint
        }))
    );
}
