//! Polls that workers record in queues.

use std::{sync::Arc, time::Duration};

use vote_core::{
    Poll, PollSlug, Polls, Queue, Store, Timestamp,
    conformance::{digest, layout, poll},
    queue::{MemoryQueue, PollState},
    store::MemoryStore,
};
use vote_service::Shutdown;

use crate::memory::{created, options, parts};

async fn eventually(queue: &dyn Queue, poll: PollSlug, expected: PollState) {
    let found = async || queue.status().await.unwrap().unwrap().polls.get(&poll).copied();
    for _ in 0..250 {
        if found().await == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(found().await, Some(expected), "poll {poll}");
}

fn example(slug: &str, closes_at: Option<Timestamp>) -> Poll {
    Poll { slug: slug.parse().unwrap(), closes_at, ..Polls::example().get("pets").unwrap().clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_has_the_polls_of_the_store_before_it_accepts_votes_and_gets_later_ones() {
    let store = Arc::new(MemoryStore::new());
    let queue = created(MemoryQueue::new()).await;
    let shutdown = Shutdown::new();
    let worker = vote_worker::run(parts(store.clone(), &[Arc::clone(&queue)]), options(1), shutdown.clone());
    let worker = tokio::spawn(worker);
    let recorded =
        |slug: &str, closes_at| PollState::Recorded { digest: digest(slug.parse().unwrap()), closes_at };
    loop {
        let status = queue.status().await.unwrap().unwrap();
        if status.active {
            break assert_eq!(status.polls, [(poll(), recorded("pets", None))].into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    // As another worker with a newer file does.
    let tea = "tea".parse().unwrap();
    store.register_poll(&example("tea", Some(Timestamp::MAX))).await.unwrap();
    eventually(&*queue, tea, recorded("tea", Some(Timestamp::MAX))).await;
    store.reschedule_poll(tea, None, "a test").await.unwrap();
    eventually(&*queue, tea, recorded("tea", None)).await;

    store.close_poll(tea).await.unwrap();
    eventually(&*queue, tea, PollState::Sealed).await;
    let next = queue.create(layout(), Some(queue.status().await.unwrap().unwrap().id)).await;
    next.unwrap();
    eventually(&*queue, tea, PollState::Sealed).await;
    eventually(&*queue, poll(), recorded("pets", None)).await;
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}
