//! Migration of files with version 1 of the tables.

use std::fmt::Write;

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use vote_core::{
    Timestamp,
    conformance::record,
    count::{
        Batch, Decision, Delivery, QuarantineState, QuarantinedVotes, QueueRecord, QueueState, ReasonCode,
    },
    queue::{PollRecord, PollState},
    store::Lookup,
};

use super::*;
use crate::reasons::stored_before_codes;

/// Creates a file as the version did that had these migrations, with these rows.
async fn old_file(path: &Path, migrations: &[&'static str], rows: String) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut connection = raw(path).await;
    let migration = |(number, sql): (i64, &&'static str)| {
        Migration::new(number, "old".into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations((1..).zip(migrations).map(migration).collect());
    migrator.dangerous_set_table_name("_vote_migrations");
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

const STORE: &str = include_str!("../../../src/store/sqlite/1_votes.sql");
const QUEUE: &str = include_str!("../../../src/queue/sqlite/1_boxes.sql");

/// Creates a store of version 1 with queue 1, which is active, and queue 2, which diverged. Of queue 1 it holds ten
/// votes, and in quarantine a frame of a poll that is not registered and a frame that did not decode.
async fn old_store(path: &Path) {
    let mut sql = format!(
        "INSERT INTO meta VALUES (1, {}, x'{}');
         INSERT INTO polls (slug, keep, voters) VALUES ('pets', 'first', 'cookie');
         INSERT INTO options VALUES (1, 0, 'cats'), (1, 1, 'dogs');",
        layout().partitions.count(),
        hex(&layout().fingerprint.0),
    );
    for partition in layout().partitions.iter() {
        write!(sql, "INSERT INTO partitions VALUES ({partition}, {});", u8::from(partition == PARTITION))
            .unwrap();
    }
    for vote in votes(0, 10) {
        let (option, at) = (u8::from(vote.option.as_str() == "dogs"), vote.cast_at.as_micros());
        write!(sql, "INSERT INTO votes VALUES (1, x'{}', {option}, {at});", vote.voter).unwrap();
    }
    let (one, two) = (queue_id(1), queue_id(2));
    let other = frames(&[Vote { poll: "tea".parse().unwrap(), ..votes(1, 1)[0] }]).remove(0);
    write!(
        sql,
        "INSERT INTO tally SELECT poll, option, 0, count(*) FROM votes GROUP BY option;
         INSERT INTO positions VALUES (0, x'{one}', x'0a');
         INSERT INTO ledger VALUES (0, x'{one}', 'pets', 13, 10, 0, 3), (0, x'{one}', 'tea', 1, 0, 0, 1);
         INSERT INTO queues VALUES (x'{one}', 'sqlite:one', 1700000000000000, 20, 7, 'active'),
             (x'{two}', 'sqlite:two', 1700000000000000, 33, 0, 'cut');
         INSERT INTO quarantine VALUES (0, x'{one}', x'05', 'pets', 3, 'frame: too short', x'00'),
             (0, x'{one}', x'06', 'tea', 1, 'poll tea is not registered', x'{}');",
        hex(&other.bytes),
    )
    .unwrap();
    old_file(path, &[STORE], sql).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test]
async fn a_store_of_version_1_keeps_what_it_holds() {
    let files = Files::new();
    let path = files.new_path();
    old_store(&path).await;
    let store = SqliteStore::open(&path).await.unwrap();
    store.prepare(layout()).await.unwrap();
    let accounts = accounts(&store).await;
    let pets = &accounts.polls[0];
    assert_eq!((pets.slug, pets.closed_at, pets.final_at), (poll(), None, None));
    assert_eq!(pets.results, ResultsFrom::AfterClose, "unknown, so the strictest value");
    assert_eq!(accounts.tally.iter().map(|row| row.votes).sum::<i64>(), 10);
    assert_eq!(accounts.rows.unwrap().values().sum::<u64>(), 10);
    assert_eq!(accounts.ledger.len(), 2);
    assert!(accounts.ledger.iter().all(|row| row.entry.unaccounted(false) == 0), "{:?}", accounts.ledger);
    assert_eq!((accounts.versions[&PARTITION], accounts.positions.len()), (1, 1));
    assert_eq!(accounts.quarantine.iter().map(|total| total.votes).sum::<u64>(), 4);
    assert_eq!(accounts.quarantine.iter().map(|total| total.pending).sum::<u64>(), 2);
    let [one, two] = &accounts.queues[..] else { panic!("{:?}", accounts.queues) };
    assert_eq!(
        (one.id, one.state, one.backlog, one.votes_accepted()),
        (queue_id(1), QueueState::Active, 7, 14)
    );
    assert!(!one.queued_complete, "no worker has counted it");
    assert_eq!((two.id, two.state), (queue_id(2), QueueState::Diverged));
    assert!(two.reason.contains("33"), "the count that it reported is kept: {}", two.reason);
}

#[tokio::test]
async fn a_store_of_version_1_works_under_the_new_rules() {
    let files = Files::new();
    let path = files.new_path();
    old_store(&path).await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert!(store.retire(queue_id(2), "the disk is gone").await.unwrap());
    let seen_at = Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    store.report(&[QueueRecord::new(queue_id(2), "sqlite:two".to_owned(), seen_at)]).await.unwrap();
    let two = store.queues().await.unwrap().remove(1);
    assert_eq!(two.state, QueueState::Retired);
    assert!(two.reason.ends_with("; retired: the disk is gone"), "{}", two.reason);

    let quarantined = store.quarantine(None, 9).await.unwrap();
    let states: Vec<_> = quarantined.iter().map(|row| (row.state, row.frame.reason.code)).collect();
    let codes = [ReasonCode::Unknown, ReasonCode::PollNotRegistered];
    assert_eq!(states, codes.map(|code| (QuarantineState::Quarantined, code)));
    let whole: Vec<_> =
        quarantined.iter().map(|row| (row.frame.accounted, row.frame.quarantined.clone())).collect();
    assert_eq!(whole, [(3, QuarantinedVotes::All), (1, QuarantinedVotes::All)], "whole frames, unchanged");
    store.decide(&[quarantined[0].key()], &Decision::Reject("noise".to_owned())).await.unwrap();

    let tea = "[[poll]]\nslug = \"tea\"\ntitle = \"Tea?\"\n\
               options = [{ slug = \"cats\", label = \"Yes\" }, { slug = \"dogs\", label = \"No\" }]";
    store.register_poll(Polls::from_toml("polls.toml", tea).unwrap().get("tea").unwrap()).await.unwrap();
    let (mut session, acquired) = session(&store).await;
    let replays = session.replays(PARTITION, 9).await.unwrap();
    assert_eq!(replays.len(), 1, "the frame that waited for its poll: {replays:?}");
    let at = acquired.checkpoints[&queue_id(1)].clone();
    let polls = store.polls().await.unwrap();
    let deliveries = vec![Delivery::nothing_new(queue_id(1), at)];
    let batch = Batch::decode(PARTITION, layout().partitions, &polls, deliveries, replays);
    let mut effective = BTreeMap::new();
    for (poll, voters) in batch.voters() {
        effective.insert(poll, session.lookup(PARTITION, poll, &voters, Lookup::Exhaustive).await.unwrap());
    }
    session.commit(&batch.plan(acquired.version, &effective)).await.unwrap();
    assert!(ledger(&store).await.iter().all(|row| row.entry.unaccounted(false) == 0));
    assert_eq!(
        accounts(&store).await.tally_of("tea".parse().unwrap()).iter().map(|(_, n)| n).sum::<u64>(),
        1
    );
    assert!(session.replays(PARTITION, 9).await.unwrap().is_empty());
}

fn second(n: usize) -> Timestamp {
    Timestamp::MIN.saturating_add(n as i64 * 1_000_000)
}

#[tokio::test]
async fn a_store_of_version_6_gets_codes_for_reasons_and_a_column_for_rejections() {
    let files = Files::new();
    let path = files.new_path();
    let (queue, expected) = (queue_id(1), stored_before_codes());
    let rejected = "poll pets is not registered; rejected: spam; rejected: twice";
    let mut sql = "INSERT INTO partitions VALUES (0, 1);".to_owned();
    let held = expected.iter().map(|(text, _)| ("held", text.as_str()));
    for (n, (state, reason)) in held.chain([("rejected", rejected)]).enumerate() {
        let (reason, at) = (reason.replace('\'', "''"), second(n).as_micros());
        write!(
            sql,
            "INSERT INTO quarantine VALUES
                 (x'{queue}', 0, x'{n:02x}', 'pets', 2, '[1, 4]', 5, '{state}', 0, {at}, '{reason}', x'07');"
        )
        .unwrap();
    }
    let migrations = [
        STORE,
        include_str!("../../../src/store/sqlite/2_audit.sql"),
        include_str!("../../../src/store/sqlite/3_results.sql"),
        include_str!("../../../src/store/sqlite/4_finality.sql"),
        include_str!("../../../src/store/sqlite/5_quarantine_by_vote.sql"),
        include_str!("../../../src/store/sqlite/6_withdrawal.sql"),
    ];
    old_file(&path, &migrations, sql).await;

    let mut rows = SqliteStore::open(&path).await.unwrap().quarantine(None, 100).await.unwrap();
    for (n, row) in (0..).zip(&rows) {
        assert_eq!((row.frame.accounted, row.quarantined_at), (5, second(n)));
        assert_eq!(
            (&row.frame.quarantined, &*row.frame.frame),
            (&QuarantinedVotes::At(vec![1, 4]), &[7][..])
        );
    }
    let last = rows.pop().unwrap();
    assert!(rows.iter().all(|row| row.state == QuarantineState::Quarantined), "{rows:?}");
    let found: Vec<_> = rows.into_iter().map(|row| (row.frame.reason.text, row.frame.reason.code)).collect();
    assert_eq!(found, expected);
    assert_eq!(
        (last.state, last.frame.reason.code),
        (QuarantineState::Rejected, ReasonCode::PollNotRegistered)
    );
    assert_eq!(last.frame.reason.text, "poll pets is not registered");
    assert_eq!(last.rejection.as_deref(), Some("spam; rejected: twice"));
}

#[tokio::test]
async fn a_reader_refuses_a_store_of_version_1_until_a_worker_migrates_it() {
    let files = Files::new();
    let path = files.new_path();
    old_store(&path).await;
    let refused = SqliteReader::open(&path).await.unwrap_err();
    assert!(matches!(refused, StoreError::OlderVersion { .. }), "{refused:?}");
    assert!(refused.to_string().contains("start a worker"), "{refused}");
    SqliteStore::open(&path).await.unwrap();
    SqliteReader::open(&path).await.unwrap();
}

#[tokio::test]
async fn entries_of_earlier_queues_in_a_file_of_version_1_become_replaced_queues() {
    let files = Files::new();
    let path = files.new_path();
    let layout = layout();
    let of = |number: u8, registered: u8| {
        let (id, count, print) = (queue_id(number), layout.partitions.count(), hex(&layout.fingerprint.0));
        format!("INSERT INTO boxes VALUES ({number}, x'{id}', 1, {count}, x'{print}', {registered});")
    };
    let frame = "INSERT INTO frames (box, partition, poll, votes, frame) VALUES";
    // The first queue was read to its end and trimmed, the second was not, the third accepts votes.
    let rows = format!(
        "{} {} {} {frame} (2, 3, 'pets', 5, x'00'); {frame} (3, 3, 'pets', 1, x'00');
         INSERT INTO accepted VALUES (1, 3, 'pets', 9, 1), (2, 3, 'pets', 5, 1), (3, 3, 'pets', 1, 2);
         INSERT INTO sealed VALUES (3, 'tea');",
        of(1, 1),
        of(2, 1),
        of(3, 1),
    );
    old_file(&path, &[QUEUE], rows).await;
    let queue = SqliteQueue::open(&path).await.unwrap();
    let status = queue.status().await.unwrap().unwrap();
    assert_eq!((status.id, status.active), (queue_id(3), true));
    let [replaced] = &status.replaced[..] else { panic!("{:?}", status.replaced) };
    assert_eq!(replaced.of, queue_id(2));
    assert_ne!(replaced.id, queue_id(2));
    let read = queue.read(replaced.id, Partition(3), Position::START, 9).await.unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.votes).collect::<Vec<_>>(), [5]);
    assert_eq!(status.polls, [("tea".parse().unwrap(), PollState::Sealed)].into());
    // A position that was stored before positions had a check.
    let end = Position::from_bytes(&2_u64.to_be_bytes()).unwrap();
    assert_eq!(queue.read(queue_id(3), Partition(3), end, 9).await.unwrap().entries, []);
    activate(&queue, queue_id(3), &[poll()]).await.unwrap();
    queue.append(queue_id(3), &frames(&[vote(1, 0, 1)])).await.unwrap();
    let again = SqliteQueue::open(&path).await.unwrap().status().await.unwrap().unwrap();
    assert_eq!(again.replaced, status.replaced, "the id stays the same");
}

#[tokio::test]
async fn a_poll_dropped_before_queues_kept_the_time_is_not_recorded_again() {
    let files = Files::new();
    let path = files.new_path();
    let (id, count, print) = (queue_id(1), layout().partitions.count(), hex(&layout().fingerprint.0));
    let rows = format!(
        "INSERT INTO queues VALUES (1, x'{id}', 1, {count}, x'{print}', 1, NULL);
         INSERT INTO dropped_polls VALUES (1, 'pets', x'{}');",
        record(poll()).digest
    );
    let migrations = [
        QUEUE,
        include_str!("../../../src/queue/sqlite/2_remains.sql"),
        include_str!("../../../src/queue/sqlite/3_polls.sql"),
        include_str!("../../../src/queue/sqlite/4_clock.sql"),
        include_str!("../../../src/queue/sqlite/5_given_up.sql"),
        include_str!("../../../src/queue/sqlite/6_names.sql"),
    ];
    old_file(&path, &migrations, rows).await;
    let queue = SqliteQueue::open(&path).await.unwrap();
    let undone = PollRecord { undone_withdrawal: Some(Timestamp::MAX), ..record(poll()) };
    assert_eq!(queue.record_polls(queue_id(1), &[undone]).await, Ok(vec![poll()]));
    assert_eq!(queue.drop_poll(queue_id(1), poll(), undone.digest, second(1)).await, Ok(true));
    assert_eq!(queue.record_polls(queue_id(1), &[undone]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let files = Files::new();
    drop(prepared(&files).await);
    let path = files.last_path();
    let mut connection = raw(&path).await;
    let newer =
        "INSERT INTO _vote_migrations SELECT 99, description, installed_on, success, checksum, execution_time
                 FROM _vote_migrations WHERE version = 1";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    for result in [SqliteStore::open(&path).await.map(drop), SqliteReader::open(&path).await.map(drop)] {
        assert!(matches!(result, Err(StoreError::NewerVersion { migration: 99, .. })), "{result:?}");
    }
}
