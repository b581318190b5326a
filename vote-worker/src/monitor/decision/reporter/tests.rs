use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::tests::{ADDRESS, catalog, look_at, record, seen, status},
    *,
};

const QUEUE: QueueId = QueueId([1; 16]);

#[test]
fn a_queue_is_reported_when_it_is_new_and_every_two_seconds() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let due = |memory: &Memory, after| memory.inspection(Role::Reporter, 0, false, now + after);
    let is_due = Inspection { role: Role::Reporter, is_due: true, report: true };
    assert_eq!(due(&Memory::default(), Duration::ZERO), is_due);
    let mut memory = seen(&here, now);
    let not_due = Inspection { is_due: false, report: false, ..is_due };
    assert_eq!(due(&memory, REPORT_EVERY - Duration::from_millis(1)), not_due);
    assert_eq!(due(&memory, REPORT_EVERY), Inspection { is_due: false, ..is_due });
    memory.record_report(now + REPORT_EVERY);
    memory.start_check();
    assert_eq!(due(&memory, REPORT_EVERY), is_due);
}

#[test]
fn a_reporter_inspects_the_queue_when_the_catalog_has_changed_and_until_it_is_active() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let mut memory = seen(&here, now);
    let due = |memory: &Memory, version| memory.inspection(Role::Reporter, version, false, now).is_due;
    assert!(!due(&memory, 0));
    assert!(due(&memory, 1), "a poll may have been registered or closed");
    memory.record_inspection(&QueueStatus { active: false, ..here }, 0, now);
    assert!(due(&memory, 0));
}

#[test]
fn an_observer_inspects_a_new_queue_and_then_only_while_replaced_queues_are_read() {
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let due = |memory: &Memory, has_replaced, after| {
        memory.inspection(Role::Observer, 7, has_replaced, now + after).is_due
    };
    assert!(due(&Memory::default(), false, Duration::ZERO));
    let memory = seen(&here, now);
    assert!(!due(&memory, false, 100 * REPORT_EVERY));
    assert!(!due(&memory, true, REPORT_EVERY / 2));
    assert!(due(&memory, true, REPORT_EVERY));
    assert!(!memory.inspection(Role::Observer, 7, true, now + REPORT_EVERY).report);
}

fn worker(n: u8) -> WorkerId {
    WorkerId([n; 16])
}

/// Returns a catalog with these live workers, in which a queue was reported by one.
fn reported_by(id: QueueId, reporter: u8, live: &[u8]) -> Catalog {
    let record = QueueRecord { reporter: Some(worker(reporter)), ..record(id, 5, Vec::new()) };
    let live = live.iter().map(|n| WorkerRecord { id: worker(*n), lanes: 1, unreached: BTreeSet::new() });
    let workers = live.map(|worker| (worker.id, worker)).collect();
    Catalog { workers, late: BTreeMap::new(), ..catalog([record]) }
}

fn reporters(id: QueueId, catalog: &Catalog) -> Vec<u8> {
    let is_reporter = |n: &u8| Memory::default().role(id, catalog, worker(*n)) != Role::Observer;
    (1..=8).filter(is_reporter).collect()
}

#[test]
fn a_queue_is_reported_by_the_first_of_the_live_workers_once_its_reporter_knows() {
    let all = [1, 2, 3, 4, 5, 6, 7, 8];
    let mut shares = [0; 9];
    for n in 0..100 {
        let id = QueueId([n; 16]);
        let next = reporters(id, &reported_by(id, 1, &all));
        let first = *next.iter().find(|n| **n != 1).unwrap_or(&1);
        assert!(next.len() <= 2, "the last reporter, and the one that takes over: {next:?}");
        assert_eq!(reporters(id, &reported_by(id, first, &all)), [first], "nobody takes over from the first");
        shares[usize::from(first)] += 1;
    }
    assert!(shares[1..].iter().all(|share| *share > 3), "the queues are shared: {shares:?}");
}

#[test]
fn a_reporter_that_is_not_the_first_reports_less_often() {
    let all = [1, 2, 3, 4, 5, 6, 7, 8];
    let first = *reporters(QUEUE, &reported_by(QUEUE, 1, &all)).iter().find(|n| **n != 1).unwrap_or(&1);
    let other = if first == 2 { 3 } else { 2 };
    let role = Memory::default().role(QUEUE, &reported_by(QUEUE, other, &all), worker(other));
    assert_eq!(role, Role::Predecessor);
    let (now, here) = (Instant::now(), status(QUEUE, "a", [5, 5]));
    let memory = seen(&here, now);
    assert!(!memory.inspection(role, 0, false, now + REPORT_EVERY).report);
    assert!(memory.inspection(role, 0, false, now + 2 * REPORT_EVERY).report);
}

#[test]
fn a_worker_that_is_about_to_end_is_relieved_at_once() {
    for n in 0..20 {
        let id = QueueId([n; 16]);
        let mut catalog = reported_by(id, 1, &[1, 2]);
        if let Some(gone) = catalog.workers.get_mut(&worker(1)) {
            gone.lanes = 0;
        }
        assert!(reporters(id, &catalog).contains(&2));
    }
}

#[test]
fn the_first_other_worker_takes_over_a_queue_that_is_late() {
    for n in 0..20 {
        let id = QueueId([n; 16]);
        let first = reporters(id, &reported_by(id, 1, &[1, 2, 3]));
        let first = *first.iter().find(|n| **n != 1).unwrap_or(&1);
        let after = |seconds| {
            let late = [(id, Timestamp::MIN)].into();
            let catalog = reported_by(id, first, &[1, 2, 3]);
            reporters(id, &Catalog { late, taken_at: at(seconds), ..catalog })
        };
        let next = after(5);
        assert!(
            next.len() == 2 && next.contains(&first),
            "{next:?}: the last reporter, and one that takes over"
        );
        assert_eq!(after(9).len(), 8, "that one may not reach the queue");
    }
}

#[test]
fn any_worker_reports_a_queue_that_was_never_reported() {
    assert_eq!(reporters(QUEUE, &catalog([])).len(), 8);
}

/// A record of `QUEUE` on a server, last seen at a second.
fn on_server(server: &str, second: i64) -> QueueRecord {
    QueueRecord { server: server.to_owned(), seen_at: at(second), ..record(QUEUE, 5, Vec::new()) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::MIN.saturating_add(second * 1_000_000)
}

#[test]
fn a_queue_that_another_worker_still_sees_on_another_server_is_a_copy() {
    let look = look_at(&status(QUEUE, "b", [5, 5]));
    let mut memory = Memory::default();
    memory.meet(&look, at(100));
    memory.meet(&look, at(109));
    let mut compare = |seen_at, role| {
        let record = on_server("a", seen_at);
        let result = memory.compare_servers(&look, Some(&record), role, at(110));
        (result, memory.divergence(QUEUE))
    };
    let unclear = || (Err(Obstacle::Unclear { address: ADDRESS.to_owned() }), None);
    assert_eq!(compare(100, Role::Observer), unclear(), "it may have been restarted");
    assert_eq!(compare(99, Role::Reporter), (Ok(()), None), "its reporter checks it");
    assert_eq!(compare(111, Role::Observer), unclear(), "the clock of the store was set back");
    assert_eq!(compare(101, Role::Reporter), unclear(), "it may have been restarted after the look");
    let copied = Evidence::Copied { address: ADDRESS.to_owned() };
    assert_eq!(
        compare(101, Role::Reporter),
        (Err(Obstacle::Diverged(copied.clone())), Some(copied)),
        "this server still answers after the other one was seen"
    );
}

#[test]
fn a_server_that_ends_after_a_look_is_no_copy() {
    let look = |server| look_at(&status(QUEUE, server, [5, 5]));
    let mut memory = Memory::default();
    memory.meet(&look("a"), at(100));
    // It was restarted between the look and the read of the record.
    assert!(memory.compare_servers(&look("a"), Some(&on_server("b", 101)), Role::Observer, at(102)).is_err());
    memory.meet(&look("b"), at(103));
    assert_eq!(
        memory.compare_servers(&look("b"), Some(&on_server("b", 101)), Role::Observer, at(104)),
        Ok(())
    );
    assert_eq!(memory.divergence(QUEUE), None);
}

#[test]
fn a_server_is_confirmed_by_the_record_or_by_a_report_of_this_worker() {
    let here = status(QUEUE, "a", [5, 5]);
    let look = look_at(&here);
    let now = Instant::now();
    let confirmed_at = |memory: &Memory, server, now| {
        let record = QueueRecord { server, ..record(QUEUE, 5, Vec::new()) };
        memory.is_server_confirmed(&look, &catalog([record]), now)
    };
    let confirmed = |memory: &Memory, server| confirmed_at(memory, server, now);
    let mut memory = Memory::default();
    assert!(confirmed(&memory, "a".to_owned()));
    assert!(confirmed(&memory, String::new()), "reported by an earlier version");
    assert!(memory.is_server_confirmed(&look, &catalog([]), now), "never reported");
    assert!(!confirmed(&memory, "b".to_owned()));
    let reported = seen(&here, now);
    assert!(confirmed(&reported, "b".to_owned()), "the record is older than the report");
    let later = now + REPORT_EVERY + LATE_AFTER;
    assert!(!confirmed_at(&reported, "b".to_owned(), later), "another worker reports another server");
    assert_eq!(memory.compare_servers(&look, Some(&on_server("a", 9)), Role::Observer, at(9)), Ok(()));
}
