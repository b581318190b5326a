//! Benchmark of completing partitions of a closed poll on a real Postgres, by the numbers of queues and partitions: the
//! CPU time of one, of this process and the server's, and the time until all of them are complete, one after the other in
//! one session that takes each over first, and the poll is final.
//!
//! `cargo bench -p vote-core --features postgres,conformance --bench completion`
//!
//! The store has ten polls, of each of which every partition of every queue has a row and a seal.
#![allow(clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::time::Instant;

use vote_core::{
    Partitions, Poll, PollSlug, Polls, Store, conformance::layout, queue::Layout, store::PostgresStore,
};
use vote_testkit::{Postgres, thread_cpu};

const CASES: [(u32, u16); 3] = [(10, 64), (1_000, 64), (1_000, 256)];
const POLLS: u16 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let postgres = Postgres::start_with(&[("max_wal_size", "8GB"), ("shared_buffers", "1GB")]);
    for (queues, partitions) in CASES {
        let layout = Layout { partitions: Partitions::new(partitions).unwrap(), ..layout() };
        let url = postgres.database();
        let store = PostgresStore::connect(&url, "vote").unwrap();
        store.migrate().await.unwrap();
        store.prepare(layout).await.unwrap();
        let example = Polls::example().iter().next().unwrap().clone();
        for n in 0..POLLS {
            store.register_poll(&Poll { slug: poll(n), ..example.clone() }).await.unwrap();
        }
        postgres.psql(&url, &rows(queues, partitions));
        store.close_poll(poll(0)).await.unwrap().unwrap();
        let mut session = store.open_session().await.unwrap();
        let (start, mut times) = (Instant::now(), Vec::new());
        for partition in layout.partitions.iter() {
            let acquired = session.acquire(partition).await.unwrap().unwrap();
            let before = (thread_cpu() + postgres.cpu()).as_secs_f64();
            let obstacles = session.complete(partition, acquired.version, poll(0)).await.unwrap();
            assert_eq!(obstacles, []);
            times.push(((thread_cpu() + postgres.cpu()).as_secs_f64() - before) * 1e3);
            session.release(partition).await.unwrap();
        }
        assert!(store.finalize_poll(poll(0)).await.unwrap());
        let all = start.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        println!(
            r#"{{"queues": {queues}, "partitions": {partitions}, "cpu_ms_of_one": {median:.1}, "all_and_final_seconds": {all:.1}}}"#
        );
    }
}

fn poll(n: u16) -> PollSlug {
    format!("poll-{n}").parse().unwrap()
}

/// Returns the statements that insert one superseded vote of each poll in each partition of each queue, and seals.
fn rows(queues: u32, partitions: u16) -> String {
    format!(
        "SET search_path = vote;
         INSERT INTO queues (queue, address, seen_at, accepted, backlog, state, ends)
         SELECT md5(n::text)::uuid, 'redis://10.0.0.' || n, now(),
                (SELECT jsonb_object_agg(slug, {partitions}) FROM polls), 0, 'active', array_fill('\\x01'::bytea, ARRAY[{partitions}])
         FROM generate_series(1, {queues}) n;
         INSERT INTO ledger (queue, partition, poll, accepted, new_voters, superseded, quarantined)
         SELECT queue, partition, slug, 1, 0, 1, 0 FROM partitions, queues, polls ORDER BY partition, queue, slug;
         INSERT INTO checkpoints SELECT queue, partition, '\\x01' FROM partitions, queues ORDER BY partition, queue;
         INSERT INTO seals (queue, poll, partition, position, accepted)
         SELECT queue, slug, partition, '\\x01', 1 FROM polls, queues, partitions ORDER BY slug, queue, partition;
         ANALYZE;"
    )
}
