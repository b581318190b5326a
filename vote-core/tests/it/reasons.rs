//! Sentences of reasons as versions without codes stored them, for tests of migrations.

use vote_core::{
    Partition, PollSlug, VoterKey,
    count::{QuarantineReason, ReasonCode, Undecodable},
    frame::FrameError,
};

/// Returns the sentences that stand in rows of poll `pets`, and their codes.
pub(crate) fn stored_before_codes() -> Vec<(String, ReasonCode)> {
    let pets: PollSlug = "pets".parse().unwrap();
    let foreign = FrameError::ForeignKey { voter: VoterKey([7; 16]), partition: Partition(3) };
    let frame = |error| QuarantineReason::from(Undecodable::Frame(error));
    let options = |n: u8| (0..n).map(|n| format!("bird{n}").parse().unwrap()).collect();
    // Sentences that have stayed the same since.
    let unchanged = [
        Undecodable::Poll("no slug".parse::<PollSlug>().unwrap_err()).into(),
        frame(FrameError::Checksum),
        frame(FrameError::Version(9)),
        frame(FrameError::Count { expected: 2, found: 1 }),
        frame(foreign),
        frame(FrameError::Size(4)),
        frame(FrameError::Malformed("3 votes in the frame, but 4 were accounted for".to_owned())),
        frame(FrameError::Trailing(3)),
        QuarantineReason::PollNotRegistered { poll: pets },
        QuarantineReason::UnknownOptions { poll: pets, options: options(1), has_more: false },
        QuarantineReason::UnknownOptions { poll: pets, options: options(8), has_more: true },
    ];
    let earlier = [
        ("it came after the count of poll pets was final", ReasonCode::PollFinal),
        ("vote 3 is quarantined, and the frame has 2", ReasonCode::DamagedIndex),
        ("frame: 3 votes where 4 were accounted for", ReasonCode::WrongVoteCount),
        ("frame: 4 bytes are no frame: it has 6 to 1048576", ReasonCode::MalformedFrame),
        ("frame: too short", ReasonCode::Unknown),
        ("poll cars has no option birds", ReasonCode::Unknown),
    ];
    unchanged
        .map(|reason| (reason.to_string(), reason.code()))
        .into_iter()
        .chain(earlier.map(|(text, code)| (text.to_owned(), code)))
        .collect()
}

#[test]
fn every_code_is_tested_and_read_as_it_was_stored() {
    let codes: Vec<_> = stored_before_codes().into_iter().map(|(_, code)| code).collect();
    for code in ReasonCode::ALL {
        assert!(codes.contains(&code), "{code:?}");
        assert_eq!(ReasonCode::from_stored(code.as_str()), code);
    }
    assert_eq!(ReasonCode::from_stored("a-code-of-a-later-version"), ReasonCode::Unknown);
}
