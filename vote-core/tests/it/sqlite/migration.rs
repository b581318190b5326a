//! Files that version 1 of the tables was written in.

use std::fmt::Write;

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use vote_core::{
    Timestamp,
    dedup::{Batch, Delivery},
    queue::PollState,
    store::{Decision, Lookup, QuarantineState, QuarantinedVotes, QueueRecord, QueueState},
};

use super::*;

/// A file as version 1 made it, with these rows in it.
async fn old_file(path: &Path, tables: &'static str, name: &'static str, rows: String) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut connection = raw(path).await;
    let first = Migration::new(1, name.into(), MigrationType::Simple, tables.into_sql_str(), false);
    let mut migrator = Migrator::with_migrations(vec![first]);
    migrator.dangerous_set_table_name("_vote_migrations");
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

const STORE: &str = include_str!("../../../src/store/sqlite/1_votes.sql");
const QUEUE: &str = include_str!("../../../src/queue/sqlite/1_boxes.sql");

/// A store with ten votes of queue 1, which is active, a frame of a poll that was not registered and a frame that did
/// not decode, and queue 2, which is cut.
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
    old_file(path, STORE, "votes", sql).await;
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
    let books = books(&store).await;
    let pets = &books.polls[0];
    assert_eq!((pets.slug, pets.closed_at, pets.final_at), (poll(), None, None));
    assert_eq!(pets.results, ResultsFrom::AfterClose, "not known, so the strict one");
    assert_eq!(books.tally.iter().map(|row| row.votes).sum::<i64>(), 10);
    assert_eq!(books.rows.unwrap().values().sum::<u64>(), 10);
    assert_eq!(books.ledger.len(), 2);
    assert!(books.ledger.iter().all(|row| row.entry.is_conserved()), "{:?}", books.ledger);
    assert_eq!((books.versions[&PARTITION], books.positions.len()), (1, 1));
    assert_eq!(books.quarantine.iter().map(|total| total.votes).sum::<u64>(), 4);
    assert_eq!(books.quarantine.iter().map(|total| total.pending).sum::<u64>(), 2);
    let [one, two] = &books.queues[..] else { panic!("{:?}", books.queues) };
    assert_eq!(
        (one.id, one.state, one.backlog, one.votes_accepted()),
        (queue_id(1), QueueState::Active, 7, 14)
    );
    assert!(!one.queued_complete, "nobody counted");
    assert_eq!((two.id, two.state), (queue_id(2), QueueState::Cut));
    assert!(two.reason.contains("33"), "what it had reported is not forgotten: {}", two.reason);
}

#[tokio::test]
async fn a_store_of_version_1_goes_on_under_the_new_rules() {
    let files = Files::new();
    let path = files.new_path();
    old_store(&path).await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert!(store.retire(queue_id(2), "the disk is gone").await.unwrap());
    let seen_at = Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    store.report(&[QueueRecord::new(queue_id(2), "sqlite:two".to_owned(), seen_at)]).await.unwrap();
    let two = store.queues().await.unwrap().remove(1);
    assert_eq!(two.state, QueueState::Retired);
    assert!(two.reason.ends_with("; written off: the disk is gone"), "{}", two.reason);

    let set_aside = store.quarantine(None, 9).await.unwrap();
    let states: Vec<_> = set_aside.iter().map(|row| (row.state, row.frame.awaits_poll)).collect();
    assert_eq!(states, [(QuarantineState::Held, false), (QuarantineState::Held, true)]);
    let whole: Vec<_> =
        set_aside.iter().map(|row| (row.frame.accounted, row.frame.quarantined.clone())).collect();
    assert_eq!(whole, [(3, QuarantinedVotes::All), (1, QuarantinedVotes::All)], "whole frames, as they were");
    store.decide(&[set_aside[0].key()], &Decision::Reject("noise".to_owned())).await.unwrap();

    let tea = "[[poll]]\nslug = \"tea\"\ntitle = \"Tea?\"\n\
               options = [{ slug = \"cats\", label = \"Yes\" }, { slug = \"dogs\", label = \"No\" }]";
    store.register_poll(Polls::from_toml("polls.toml", tea).unwrap().get("tea").unwrap()).await.unwrap();
    let (mut lane, acquired) = lane(&store).await;
    let replays = lane.replays(PARTITION, 9).await.unwrap();
    assert_eq!(replays.len(), 1, "the frame that waited for its poll: {replays:?}");
    let at = acquired.checkpoints[&queue_id(1)].clone();
    let polls = store.polls().await.unwrap();
    let deliveries = vec![Delivery::nothing_new(queue_id(1), at)];
    let batch = Batch::decode(PARTITION, layout().partitions, &polls, deliveries, replays);
    let mut standing = BTreeMap::new();
    for (poll, voters) in batch.voters() {
        standing.insert(poll, lane.lookup(PARTITION, poll, &voters, Lookup::Exhaustive).await.unwrap());
    }
    lane.commit(&batch.plan(acquired.version, &standing)).await.unwrap();
    assert!(ledger(&store).await.iter().all(|row| row.entry.is_conserved()));
    assert_eq!(store.tally("tea".parse().unwrap()).await.unwrap().iter().map(|(_, n)| n).sum::<u64>(), 1);
    assert!(lane.replays(PARTITION, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_reader_waits_for_a_worker_to_bring_a_store_of_version_1_up_to_date() {
    let files = Files::new();
    let path = files.new_path();
    old_store(&path).await;
    let Err(StoreError::NotPrepared(reason)) = SqliteStore::open_read_only(&path).await else {
        panic!("it lacks tables")
    };
    assert!(reason.contains("start a worker"), "{reason}");
    SqliteStore::open(&path).await.unwrap();
    SqliteStore::open_read_only(&path).await.unwrap();
}

#[tokio::test]
async fn in_a_queue_of_version_1_what_replaced_boxes_held_becomes_remains() {
    let files = Files::new();
    let path = files.new_path();
    let layout = layout();
    let of = |number: u8, registered: u8| {
        let (id, count, print) = (queue_id(number), layout.partitions.count(), hex(&layout.fingerprint.0));
        format!("INSERT INTO boxes VALUES ({number}, x'{id}', 1, {count}, x'{print}', {registered});")
    };
    let frame = "INSERT INTO frames (box, partition, poll, votes, frame) VALUES";
    // The first was read to its end and trimmed, the second was not, the third takes votes.
    let rows = format!(
        "{} {} {} {frame} (2, 3, 'pets', 5, x'00'); {frame} (3, 3, 'pets', 1, x'00');
         INSERT INTO accepted VALUES (1, 3, 'pets', 9, 1), (2, 3, 'pets', 5, 1), (3, 3, 'pets', 1, 2);
         INSERT INTO sealed VALUES (3, 'tea');",
        of(1, 1),
        of(2, 1),
        of(3, 1),
    );
    old_file(&path, QUEUE, "boxes", rows).await;
    let queue = SqliteQueue::open(&path).await.unwrap();
    let status = queue.status().await.unwrap().unwrap();
    assert_eq!((status.id, status.registered), (queue_id(3), true));
    let [remains] = &status.remains[..] else { panic!("{:?}", status.remains) };
    assert_eq!(remains.of, queue_id(2));
    assert_ne!(remains.id, queue_id(2));
    let read = queue.read(remains.id, Partition(3), Position::START, 9).await.unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.votes).collect::<Vec<_>>(), [5]);
    assert_eq!(status.polls, [("tea".parse().unwrap(), PollState::Sealed)].into());
    // What was read before positions had a check.
    let end = Position::from_bytes(&2_u64.to_be_bytes()).unwrap();
    assert_eq!(queue.read(queue_id(3), Partition(3), end, 9).await.unwrap().entries, []);
    activate(&queue, queue_id(3), &[poll()]).await.unwrap();
    queue.append(queue_id(3), &frames(&[vote(1, 0, 1)])).await.unwrap();
    let again = SqliteQueue::open(&path).await.unwrap().status().await.unwrap().unwrap();
    assert_eq!(again.remains, status.remains, "the identity stays");
}
