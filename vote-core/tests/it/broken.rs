//! Tests that the conformance suites can fail: each clause fails on the implementation with the fault made for it.

use vote_core::conformance::{
    broken::{BrokenQueues, BrokenStores},
    queue, store,
};

#[tokio::test]
async fn every_clause_for_queues_detects_its_fault() {
    for (clause, fault) in queue::Clause::ALL {
        let check = tokio::spawn(async { clause.check(&BrokenQueues(*fault)).await });
        assert!(check.await.is_err(), "{clause:?} does not detect a queue with the fault {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_clause_for_stores_detects_its_fault() {
    for (clause, fault) in store::Clause::ALL {
        let check = tokio::spawn(async { clause.check(&BrokenStores(*fault)).await });
        assert!(check.await.is_err(), "{clause:?} does not detect a store with the fault {fault:?}");
    }
}
