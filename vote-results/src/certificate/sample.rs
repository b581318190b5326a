//! A certificate for tests.

use vote_core::{
    Keep, Polls, QueueId, Timestamp,
    count::{
        QueueState,
        audit::{Audit, Figures, Finding, PollAudit, PollStage, QueueAudit, Verdict},
    },
    poll::Voters,
};

use super::{
    BallotFile, Certificate, CertificateStatus, FORMAT, File, PollDefinition, Software, VoteResult,
    ballots::Counted, files,
};

fn queue(n: u64, state: QueueState, reason: &str, figures: Figures) -> QueueAudit {
    QueueAudit {
        queue: format!("{n:032x}"),
        address: format!("redis://node-{n}:6379"),
        seen_at: Timestamp::MIN,
        state,
        reason: reason.to_owned(),
        reported: 9,
        queued_complete: true,
        complete: true,
        figures,
    }
}

/// A certificate of seven votes from two queues, one of them retired.
pub(super) fn certificate() -> Certificate {
    let pets = Polls::example().get("pets").unwrap().clone();
    let active = Figures { accepted: 5, new_voters: 3, superseded: 1, quarantined: 1, ..Figures::default() };
    let retired = Figures { accepted: 2, new_voters: 2, reread: 4, reread_new: 2, ..Figures::default() };
    let total = Figures {
        accepted: 7,
        new_voters: 5,
        superseded: 1,
        quarantined: 1,
        reread: 4,
        reread_new: 2,
        ..Figures::default()
    };
    let queues = vec![
        queue(1, QueueState::Active, "", active),
        queue(2, QueueState::Retired, "node 2 burnt down", retired),
    ];
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
        status: CertificateStatus::Final,
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
                state: PollStage::Final,
                reschedules: Vec::new(),
                tally: 7,
                rows: Some(7),
                total,
                queues,
            }],
        },
    }
}

/// The counts of the ballots of this certificate.
pub(super) fn counted() -> Counted {
    Counted { count: 7, votes: vec![4, 3], sha256: "ab".repeat(32) }
}

/// Three votes that are queued at this address.
pub(super) fn queued(address: &str) -> Finding {
    Finding::Queued { queue: QueueId([1; 16]), address: address.to_owned(), votes: 3, complete: true }
}

/// The same certificate, but forced while votes were outstanding.
pub(super) fn forced() -> Certificate {
    let mut certificate = certificate();
    certificate.status = CertificateStatus::Forced;
    certificate.final_at = None;
    certificate.outstanding = vec![queued("redis://node-1:6379")];
    certificate.audit.polls[0].state = PollStage::Closed;
    certificate
}
