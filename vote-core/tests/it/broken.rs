//! The suites can fail: each clause fails on the implementation made for it.

use vote_core::conformance::{
    broken::{BrokenQueues, BrokenStores},
    queue, store,
};

#[tokio::test]
async fn every_clause_for_queues_notices_its_fault() {
    for (clause, fault) in queue::Clause::ALL {
        let check = tokio::spawn(async { clause.check(&BrokenQueues(*fault)).await });
        assert!(check.await.is_err(), "{clause:?} does not notice a queue that {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_clause_for_stores_notices_its_fault() {
    for (clause, fault) in store::Clause::ALL {
        let check = tokio::spawn(async { clause.check(&BrokenStores(*fault)).await });
        assert!(check.await.is_err(), "{clause:?} does not notice a store that {fault:?}");
    }
}
