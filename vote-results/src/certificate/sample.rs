//! A certificate for tests.

use vote_core::{
    Keep, Polls, Timestamp,
    audit::{Audit, Figures, PollAudit, PollState, QueueAudit, Verdict},
    poll::Voters,
};

use super::{
    BallotFile, Certificate, FORMAT, File, PollDefinition, Software, Status, VoteResult, ballots::Counted,
    files,
};

fn queue(n: u64, state: &str, reason: &str, figures: Figures) -> QueueAudit {
    QueueAudit {
        queue: format!("{n:032x}"),
        address: format!("redis://node-{n}:6379"),
        seen_at: Timestamp::MIN,
        state: state.to_owned(),
        reason: reason.to_owned(),
        reported: 9,
        queued_complete: true,
        complete: true,
        figures,
    }
}

/// Seven votes in two queues, of which one was written off.
pub(super) fn certificate() -> Certificate {
    let pets = Polls::example().get("pets").unwrap().clone();
    let whole = Figures { accepted: 5, new_voters: 3, superseded: 1, quarantined: 1, ..Figures::default() };
    let lost = Figures { accepted: 2, new_voters: 2, reread: 4, reread_new: 2, ..Figures::default() };
    let total = Figures {
        accepted: 7,
        new_voters: 5,
        superseded: 1,
        quarantined: 1,
        reread: 4,
        reread_new: 2,
        ..Figures::default()
    };
    let queues = vec![queue(1, "active", "", whole), queue(2, "retired", "node 2 burnt down", lost)];
    Certificate {
        format: FORMAT,
        software: Software { name: "vote-results".to_owned(), version: "0.1.0".to_owned(), commit: None },
        created_at: "2027-02-15T06:30:00Z".to_owned(),
        poll: PollDefinition {
            slug: pets.slug,
            title: pets.title,
            options: pets.options.clone(),
            keep: Keep::First,
            voters: Voters::Cookie,
        },
        closed_at: Some("2027-02-15T06:00:00Z".to_owned()),
        final_at: Some("2027-02-15T06:01:00Z".to_owned()),
        status: Status::Final,
        outstanding: Vec::new(),
        problems: Vec::new(),
        result: VoteResult::new(&[pets.options[0].slug, pets.options[1].slug], &counted().votes),
        ballots: BallotFile { file: files::BALLOTS.to_owned(), count: 7, sha256: counted().sha256 },
        page: File { file: files::PAGE.to_owned(), sha256: "00".repeat(32) },
        audit: Audit {
            taken_at: Timestamp::MIN,
            verdict: Verdict::Holds,
            problems: Vec::new(),
            outstanding: Vec::new(),
            polls: vec![PollAudit {
                poll: "pets".to_owned(),
                state: PollState::Final,
                reschedules: Vec::new(),
                tally: 7,
                rows: Some(7),
                total,
                queues,
            }],
        },
    }
}

/// Its ballots.
pub(super) fn counted() -> Counted {
    Counted { count: 7, votes: vec![4, 3], sha256: "ab".repeat(32) }
}

/// It, forced.
pub(super) fn forced() -> Certificate {
    let mut certificate = certificate();
    certificate.status = Status::Forced;
    certificate.final_at = None;
    certificate.outstanding = vec!["queue 1 has 3 votes queued".to_owned()];
    certificate.audit.polls[0].state = PollState::Closed;
    certificate
}
