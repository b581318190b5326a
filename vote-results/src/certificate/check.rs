//! Checks that the figures of a certificate agree with each other and with the ballots. Pure.

use std::fmt::Display;

use vote_core::count::{
    QueueState,
    audit::{Figures, PollAudit, PollStage, Verdict},
};

use super::{Certificate, CertificateStatus, FORMAT, MAX_CERTIFICATE, ballots::Counted, files};
use crate::thousands::grouped;

/// Outcome of a group of checks: a line for each check that passed, or the first one that failed.
pub type Checked = Result<Vec<String>, String>;

/// Parses a certificate. Its signature should be verified before.
///
/// # Errors
/// Fails if the certificate is too long, has another format, or has fields that are not part of the format.
pub fn parse(bytes: &[u8]) -> Result<Certificate, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    if bytes.len() > MAX_CERTIFICATE {
        return Err(format!("{}: is longer than {MAX_CERTIFICATE} bytes", files::CERTIFICATE));
    }
    let wrong = |e: &dyn Display| format!("{}: {e}", files::CERTIFICATE);
    let Version { format } = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
    if format != FORMAT {
        return Err(wrong(&format!(
            "has format {format}, but this version of the program reads only format {FORMAT}: use the version that \
             wrote it or a newer one"
        )));
    }
    let certificate: Certificate = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
    // Anything that was not understood is missing after a round trip.
    let given: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
    let understood = serde_json::to_value(&certificate).map_err(|e| wrong(&e))?;
    match difference(&given, &understood, String::new()) {
        None => Ok(certificate),
        Some(path) => Err(wrong(&format!("{path} is not part of format {FORMAT}"))),
    }
}

/// Returns the path of the first difference between two values.
fn difference(given: &serde_json::Value, understood: &serde_json::Value, path: String) -> Option<String> {
    use serde_json::Value::{Array, Object, String};
    let below =
        |name: &dyn Display| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match (given, understood) {
        (Object(given), Object(understood)) => {
            let missing = understood.keys().find(|name| !given.contains_key(*name)).map(|name| below(name));
            let other = given.iter().find_map(|(name, value)| match understood.get(name) {
                Some(understood) => difference(value, understood, below(name)),
                None => Some(below(&name.escape_debug())),
            });
            other.or(missing)
        }
        (Array(given), Array(understood)) if given.len() == understood.len() => {
            let mut pairs = (0_usize..).zip(given.iter().zip(understood));
            pairs.find_map(|(i, (given, understood))| difference(given, understood, below(&i)))
        }
        // Versions of one format may word the sentence of a finding differently; code and fields say the same.
        (String(_), String(_)) if path.ends_with(".text") => None,
        _ => (given != understood).then_some(path),
    }
}

/// Checks the definition of the poll and the names of the files, which needs no ballots.
///
/// # Errors
/// Fails with the first contradiction.
pub fn definition(certificate: &Certificate) -> Result<(), String> {
    let Certificate { poll, result, ballots, page, .. } = certificate;
    for (named, expected) in [(&ballots.file, files::BALLOTS), (&page.file, files::PAGE)] {
        if named != expected {
            return Err(format!("{}: names a file {named:?}, which must be {expected}", files::CERTIFICATE));
        }
    }
    let defined = poll.options.iter().map(|option| option.slug);
    if !defined.eq(result.options.iter().map(|option| option.option)) {
        return Err("result: its options differ from those of the poll".to_owned());
    }
    for (i, option) in poll.options.iter().enumerate() {
        if poll.options[..i].iter().any(|other| other.slug == option.slug) {
            return Err(format!("poll: option {} is listed twice", option.slug));
        }
    }
    Ok(())
}

/// Checks that the ballots are those of the certificate and that the result follows from them.
///
/// # Errors
/// Fails with the first check that does not pass.
pub fn result(certificate: &Certificate, counted: &Counted) -> Checked {
    let Certificate { result, ballots, .. } = certificate;
    same(format_args!("{}: ballots", files::BALLOTS), counted.count, ballots.count)?;
    if counted.sha256 != ballots.sha256 {
        return Err(format!(
            "{}: SHA-256: {}, where the certificate says {}",
            files::BALLOTS,
            counted.sha256,
            ballots.sha256
        ));
    }
    for (option, votes) in result.options.iter().zip(&counted.votes) {
        same(format_args!("result: ballots for {}", option.option), *votes, option.votes)?;
    }
    let sum: u128 = result.options.iter().map(|option| u128::from(option.votes)).sum();
    same("result: the sum of the options", sum, u128::from(result.total))?;
    same("result: number of ballots", counted.count, result.total)?;
    Ok(vec![
        format!("{} ballots, each voter once", grouped(counted.count)),
        format!("SHA-256 of {} is {}", files::BALLOTS, counted.sha256),
        "the number of ballots for each option is that of the result".to_owned(),
    ])
}

/// Checks that the audit accounts for every vote, and for as many effective ballots as there are in the file.
///
/// # Errors
/// Fails with the first sum that is wrong.
pub fn audit(certificate: &Certificate) -> Checked {
    let [poll] = certificate.audit.polls.as_slice() else {
        return Err("audit: does not cover exactly one poll".to_owned());
    };
    if poll.poll != certificate.poll.slug.as_str() {
        return Err(format!("audit: covers poll {:?}, not {}", poll.poll, certificate.poll.slug));
    }
    let mut lost = 0;
    for queue in &poll.queues {
        // The operator who retired a queue accepted the loss of its missing votes.
        let is_retired = queue.state == QueueState::Retired;
        let known = queue.figures.unaccounted(false) - queue.figures.unaccounted(is_retired);
        conserved(format_args!("queue {}", queue.queue.escape_debug()), &queue.figures, known)?;
        lost += known;
    }
    conserved("all queues", &poll.total, lost)?;
    sums(poll)?;
    let total = &poll.total;
    let effective = u128::from(total.new_voters) + u128::from(total.reread_new);
    same("audit: new voters, with those reread", effective, u128::from(certificate.result.total))?;
    same("audit: tally", i128::from(poll.tally), i128::from(certificate.result.total))?;
    same("audit: rows of ballots", poll.rows, Some(certificate.result.total))?;
    let queues = match poll.queues.len() {
        1 => "1 queue".to_owned(),
        n => format!("each of {n} queues"),
    };
    let and_lost = if lost == 0 { String::new() } else { format!(" + {lost} lost in retired queues") };
    Ok(vec![
        format!("in {queues}, accepted votes = new voters + superseded + quarantined"),
        format!(
            "in total, {} accepted = {} new voters + {} superseded + {} quarantined{and_lost}",
            grouped(total.accepted),
            grouped(total.new_voters),
            grouped(total.superseded),
            total.quarantined
        ),
        format!(
            "{} new voters + {} reread from replaced queues = {} ballots",
            grouped(total.new_voters),
            grouped(total.reread_new),
            grouped(certificate.result.total)
        ),
    ])
}

fn conserved(what: impl Display, figures: &Figures, known: i128) -> Result<(), String> {
    if figures.unaccounted(false) == known && figures.quarantined >= 0 {
        return Ok(());
    }
    let Figures { accepted, new_voters, superseded, quarantined, .. } = figures;
    Err(format!(
        "audit: {what}: {accepted} accepted votes do not equal {new_voters} new voters + {superseded} superseded + \
         {quarantined} quarantined + {known} lost in retired queues"
    ))
}

/// Checks that the figures of the queues add up to those of the poll.
fn sums(poll: &PollAudit) -> Result<(), String> {
    type Column = fn(&Figures) -> i128;
    let columns: [(&str, Column); 8] = [
        ("accepted", |f| f.accepted.into()),
        ("new voters", |f| f.new_voters.into()),
        ("superseded", |f| f.superseded.into()),
        ("quarantined", |f| f.quarantined.into()),
        ("queued", |f| f.queued.into()),
        ("reread", |f| f.reread.into()),
        ("reread new", |f| f.reread_new.into()),
        ("reread quarantined", |f| f.reread_quarantined.into()),
    ];
    for (name, column) in columns {
        let sum: i128 = poll.queues.iter().map(|queue| column(&queue.figures)).sum();
        same(format_args!("audit: the sum of {name} over the queues"), sum, column(&poll.total))?;
    }
    Ok(())
}

/// Checks that the status of the certificate agrees with its audit.
///
/// # Errors
/// Fails if the certificate is not as final as its status claims, or if it lists accounting errors.
pub fn status(certificate: &Certificate) -> Checked {
    let Certificate { status, outstanding, problems, audit, closed_at, final_at, .. } = certificate;
    if let Some(problem) = problems.iter().chain(&audit.problems).next() {
        return Err(format!("accounting errors when this certificate was forced: {problem}"));
    }
    match status {
        CertificateStatus::Forced => Ok(Vec::new()),
        CertificateStatus::Final => {
            let is_final = audit.polls.iter().all(|poll| poll.state == PollStage::Final);
            if let Some(finding) = outstanding.iter().chain(&audit.outstanding).next() {
                return Err(format!(
                    "the certificate claims to be final, but lists as outstanding: {finding}"
                ));
            }
            match (closed_at, final_at) {
                (Some(closed_at), Some(final_at)) if is_final && audit.verdict == Verdict::Holds => {
                    Ok(vec![format!("the poll closed at {closed_at} and became final at {final_at}")])
                }
                _ => {
                    Err("the certificate claims to be final, but its audit does not confirm that".to_owned())
                }
            }
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: impl Display, found: T, certified: T) -> Result<(), String> {
    if found == certified {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, where the certificate says {certified:?}"))
}

#[cfg(test)]
mod tests;
