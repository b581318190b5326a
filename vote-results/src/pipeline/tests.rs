use vote_core::{
    Partition, Poll,
    count::{Accounts, LedgerEntry, LedgerRow, QueueRecord},
};

use super::*;

fn row(partition: u16, poll: &str, [accepted, new_voters, superseded, quarantined]: [u64; 4]) -> LedgerRow {
    let quarantined = quarantined as i64;
    let entry = LedgerEntry {
        queue: QueueId([1; 16]),
        poll: poll.to_owned(),
        accepted,
        new_voters,
        superseded,
        quarantined,
    };
    LedgerRow { partition: Partition(partition), entry }
}

fn queue(number: u8, queued: u64, state: QueueState) -> QueueRecord {
    let record = QueueRecord::new(QueueId([number; 16]), format!("redis://{number}"), Timestamp::MIN);
    QueueRecord {
        accepted: [("pets".to_owned(), 40)].into(),
        queued: [("pets".to_owned(), queued)].into(),
        state,
        ..record
    }
}

fn pipeline(
    polls: &Polls,
    registered: &[RegisteredPoll],
    queues: &[QueueRecord],
    ledger: &[LedgerRow],
) -> Pipeline {
    let (polls_of_store, queues, ledger) = (registered.to_vec(), queues.to_vec(), ledger.to_vec());
    let accounts = Accounts { polls: polls_of_store, queues, ledger, ..Accounts::default() };
    Pipeline::new(polls, &Summary::of(&accounts), &Balances::of(&accounts))
}

fn registered() -> RegisteredPoll {
    Polls::example().get("pets").unwrap().into()
}

fn withholding() -> Polls {
    Polls::from_toml(
        "polls.toml",
        r#"
        [[poll]]
        slug = "pets"
        title = "Cats or dogs?"
        options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
        results = "after-close"
        "#,
    )
    .unwrap()
}

#[test]
fn the_figures_of_a_poll_are_summed_over_partitions_and_queues() {
    let ledger = [row(0, "pets", [10, 7, 2, 1]), row(1, "pets", [5, 5, 0, 0])];
    let pipeline = pipeline(&Polls::example(), &[registered()], &[], &ledger);
    let [line] = &pipeline.polls[..] else { panic!("{pipeline:?}") };
    let expected = PollFigures { accepted: 15, new_voters: 12, superseded: 2, quarantined: 1, residual: 0 };
    assert_eq!((&line.figures, line.conserved), (&Figures::Shown(expected), true));
    assert_eq!(line.problem, None);
}

#[test]
fn lost_votes_and_votes_counted_twice_show_in_the_residual() {
    for (votes, residual) in [([10, 7, 2, 0], 1), ([10, 11, 0, 0], -1)] {
        let pipeline = pipeline(&Polls::example(), &[registered()], &[], &[row(0, "pets", votes)]);
        let line = &pipeline.polls[0];
        assert_eq!((line.figures.shown().unwrap().residual, line.conserved), (residual, false));
    }
}

#[test]
fn votes_missing_from_a_queue_raise_an_alarm_until_it_is_retired() {
    let ledger = [row(0, "pets", [10, 7, 2, 0])];
    for (state, residual) in [(QueueState::Active, 1), (QueueState::Diverged, 1), (QueueState::Retired, 0)] {
        let pipeline = pipeline(&Polls::example(), &[registered()], &[queue(1, 0, state)], &ledger);
        let line = &pipeline.polls[0];
        let shown = (line.figures.shown().unwrap().residual, line.conserved);
        assert_eq!(shown, (residual, residual == 0), "{state:?}");
    }
}

#[test]
fn a_poll_that_only_the_store_has_is_shown_with_a_problem() {
    let polls = Polls::example();
    let mut old = registered();
    old.slug = "old".parse().unwrap();
    let pipeline = pipeline(&polls, &[registered(), old], &[], &[row(0, "<b>", [3, 0, 0, 3])]);
    let names: Vec<_> =
        pipeline.polls.iter().map(|line| (line.poll.as_str(), line.problem.is_some())).collect();
    assert_eq!(names, [("pets", false), ("<b>", true), ("old", true)]);
}

#[test]
fn a_registration_that_differs_from_the_file_is_a_problem() {
    let mut registered = registered();
    registered.options.pop();
    let pipeline = pipeline(&Polls::example(), &[registered], &[], &[]);
    let problem = pipeline.polls[0].problem.as_deref().unwrap();
    assert!(problem.contains("options are cats where the file says cats, dogs"), "{problem}");
}

#[test]
fn a_withheld_poll_shows_no_counts_of_votes() {
    let polls = withholding();
    let queues = [queue(1, 3, QueueState::Active), queue(2, 0, QueueState::Active)];
    let pipeline = pipeline(&polls, &[registered()], &queues, &[row(0, "pets", [37, 30, 7, 0])]);
    let line = &pipeline.polls[0];
    assert_eq!((&line.figures, line.conserved), (&Figures::Withheld, true));
    assert!(pipeline.queues.iter().all(|queue| queue.figures == Figures::Withheld), "{pipeline:?}");
    let json = serde_json::to_value(&pipeline.queues[0]).unwrap();
    for field in ["accepted", "queued", "drained"] {
        assert_eq!(json[field], serde_json::json!(null), "{field}");
    }
}

#[test]
fn the_outcome_of_a_diverged_queue_names_its_replaced_queue() {
    let replaced = QueueRecord { original_id: Some(QueueId([2; 16])), ..queue(9, 0, QueueState::Active) };
    let queues = [queue(1, 0, QueueState::Active), queue(2, 0, QueueState::Diverged), replaced];
    let pipeline = pipeline(&Polls::example(), &[], &queues, &[]);
    let diverged = QueueOutcome { is_ended: true, replaced: vec![QueueId([9; 16])] };
    assert_eq!(pipeline.queue_outcome(QueueId([2; 16])), diverged);
    assert_eq!(pipeline.queue_outcome(QueueId([1; 16])), QueueOutcome::default());
    assert_eq!(pipeline.queue_outcome(QueueId([3; 16])), QueueOutcome::default());
}

#[test]
fn ids_and_times_are_strings_in_the_json() {
    let pipeline = pipeline(&Polls::example(), &[registered()], &[queue(1, 0, QueueState::Diverged)], &[]);
    assert_eq!(
        serde_json::to_value(&pipeline.queues[0]).unwrap(),
        serde_json::json!({
            "queue": "01".repeat(16), "address": "redis://1", "seen_at": "2020-01-01T00:00:00Z",
            "accepted": 40, "queued": 0, "drained": true, "state": "diverged",
        })
    );
}

#[test]
fn a_withheld_poll_still_shows_that_votes_are_unaccounted_for() {
    let pipeline = pipeline(&withholding(), &[registered()], &[], &[row(0, "pets", [37, 30, 6, 0])]);
    let json = serde_json::to_value(&pipeline.polls[0]).unwrap();
    assert_eq!(
        (&json["residual"], &json["conserved"]),
        (&serde_json::json!(null), &serde_json::json!(false))
    );
}

#[test]
fn the_reason_of_a_queue_is_withheld_with_its_figures() {
    let reason = "it counts 37 votes where 46 were seen".to_owned();
    let queues = [QueueRecord { reason: reason.clone(), ..queue(1, 0, QueueState::Diverged) }];
    let reason_of = |polls: &Polls| {
        let pipeline = pipeline(polls, &[registered()], &queues, &[]);
        pipeline.queues[0].figures.shown().map(|figures| figures.reason.clone())
    };
    assert_eq!(reason_of(&Polls::example()), Some(reason));
    assert_eq!(reason_of(&withholding()), None);
}

#[test]
fn a_results_setting_that_differs_in_the_store_is_a_problem_until_the_poll_is_final() {
    let polls = withholding();
    let problem = |registered| pipeline(&polls, &[registered], &[], &[]).polls[0].problem.clone();
    let text = problem(registered()).unwrap();
    assert!(text.contains("results are \"live\" where the file says \"after-close\""), "{text}");
    let at = Some(Timestamp::MIN);
    assert_eq!(problem(RegisteredPoll { closed_at: at, final_at: at, ..registered() }), None);
}

#[test]
fn an_unregistered_poll_has_a_problem() {
    let poll: &Poll = &Polls::example().get("pets").unwrap().clone();
    let pipeline = pipeline(&Polls::example(), &[], &[], &[]);
    assert_eq!(pipeline.polls[0].poll, poll.slug.as_str());
    assert!(!pipeline.polls[0].registered && pipeline.polls[0].problem.is_some());
}
