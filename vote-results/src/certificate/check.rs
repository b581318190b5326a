//! Whether the figures of a certificate agree with one another and with the ballots. Pure.

use std::fmt::Display;

use vote_core::{
    audit::{Figures, PollAudit, PollState, Verdict},
    store::QueueState,
};

use super::{Certificate, FORMAT, MAX_CERTIFICATE, Status, ballots::Counted, files, grouped};

/// What was found to be so, each in a line; or the first that is not.
pub type Checked = Result<Vec<String>, String>;

/// Reads a certificate whose signature is good.
///
/// # Errors
/// When it is too long, of another format, or has what this format does not have.
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
            "is of format {format}, and this version of the program knows format {FORMAT} only; use the one that wrote \
             it, or a newer one"
        )));
    }
    let certificate: Certificate = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
    // What was not understood would be missing now.
    let given: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
    let understood = serde_json::to_value(&certificate).map_err(|e| wrong(&e))?;
    match difference(&given, &understood, String::new()) {
        None => Ok(certificate),
        Some(path) => Err(wrong(&format!("{path} is not known to format {FORMAT}"))),
    }
}

/// The path to the first place where two values differ.
fn difference(given: &serde_json::Value, understood: &serde_json::Value, path: String) -> Option<String> {
    use serde_json::Value::{Array, Object};
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
        _ => (given != understood).then_some(path),
    }
}

/// What can be said of a certificate without the ballots.
///
/// # Errors
/// With the first contradiction in it.
pub fn definition(certificate: &Certificate) -> Result<(), String> {
    let Certificate { poll, result, ballots, page, .. } = certificate;
    for (named, expected) in [(&ballots.file, files::BALLOTS), (&page.file, files::PAGE)] {
        if named != expected {
            return Err(format!("{}: names {named:?} where the file is {expected}", files::CERTIFICATE));
        }
    }
    let defined = poll.options.iter().map(|option| option.slug);
    if !defined.eq(result.options.iter().map(|option| option.option)) {
        return Err("result: its options are not those of the poll".to_owned());
    }
    for (i, option) in poll.options.iter().enumerate() {
        if poll.options[..i].iter().any(|other| other.slug == option.slug) {
            return Err(format!("poll: option {} is there twice", option.slug));
        }
    }
    Ok(())
}

/// Whether the ballots are those of the certificate, and the result follows from them.
///
/// # Errors
/// With the first that does not.
pub fn result(certificate: &Certificate, counted: &Counted) -> Checked {
    let Certificate { result, ballots, .. } = certificate;
    same(format_args!("{}: ballots", files::BALLOTS), counted.count, ballots.count)?;
    if counted.sha256 != ballots.sha256 {
        return Err(format!(
            "{}: its SHA-256 is {}, that of the certified file is {}",
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
    same("result: ballots in all", counted.count, result.total)?;
    Ok(vec![
        format!("{} ballots, each voter once", grouped(counted.count)),
        format!("SHA-256 of {} is {}", files::BALLOTS, counted.sha256),
        "the ballots of each option are as many as the result says".to_owned(),
    ])
}

/// Whether the audit accounts for every vote, and for as many standing votes as there are ballots.
///
/// # Errors
/// With the first sum that does not come out.
pub fn audit(certificate: &Certificate) -> Checked {
    let [poll] = certificate.audit.polls.as_slice() else {
        return Err("audit: is not of one poll".to_owned());
    };
    if poll.poll != certificate.poll.slug.as_str() {
        return Err(format!("audit: is of poll {:?}, not of {}", poll.poll, certificate.poll.slug));
    }
    let mut written_off = 0;
    for queue in &poll.queues {
        // What is missing of a queue that was written off is known to be missing.
        let is_over = queue.state == QueueState::Retired.as_str();
        let known = if is_over { missing(&queue.figures).max(0) } else { 0 };
        conserved(format_args!("queue {}", queue.queue.escape_debug()), &queue.figures, known)?;
        written_off += known;
    }
    conserved("all queues together", &poll.total, written_off)?;
    sums(poll)?;
    let total = &poll.total;
    let standing = u128::from(total.new_voters) + u128::from(total.reread_new);
    same("audit: new voters, those of remains among them", standing, u128::from(certificate.result.total))?;
    same("audit: standing votes by the tally", i128::from(poll.tally), i128::from(certificate.result.total))?;
    same("audit: rows", poll.rows, Some(certificate.result.total))?;
    let queues = match poll.queues.len() {
        1 => "1 queue".to_owned(),
        n => format!("each of {n} queues"),
    };
    let and_lost = if written_off == 0 { String::new() } else { format!(" + {written_off} written off") };
    Ok(vec![
        format!("in {queues}, accepted votes = new voters + superseded + quarantined"),
        format!(
            "together {} accepted = {} new voters + {} superseded + {} quarantined{and_lost}",
            grouped(total.accepted),
            grouped(total.new_voters),
            grouped(total.superseded),
            total.quarantined
        ),
        format!(
            "{} new voters + {} from what was left of cut queues = {} ballots",
            grouped(total.new_voters),
            grouped(total.reread_new),
            grouped(certificate.result.total)
        ),
    ])
}

/// How many of the accepted votes are neither counted nor quarantined.
pub(super) fn missing(figures: &Figures) -> i128 {
    i128::from(figures.accepted)
        - i128::from(figures.new_voters)
        - i128::from(figures.superseded)
        - i128::from(figures.quarantined)
}

fn conserved(what: impl Display, figures: &Figures, known: i128) -> Result<(), String> {
    if missing(figures) == known && figures.quarantined >= 0 {
        return Ok(());
    }
    let Figures { accepted, new_voters, superseded, quarantined, .. } = figures;
    Err(format!(
        "audit: {what}: {accepted} accepted votes are not {new_voters} new voters + {superseded} superseded + \
         {quarantined} quarantined + {known} written off"
    ))
}

/// Whether the figures of the queues add up to those of the poll.
fn sums(poll: &PollAudit) -> Result<(), String> {
    type Column = fn(&Figures) -> i128;
    let columns: [(&str, Column); 8] = [
        ("accepted", |f| f.accepted.into()),
        ("new voters", |f| f.new_voters.into()),
        ("superseded", |f| f.superseded.into()),
        ("quarantined", |f| f.quarantined.into()),
        ("queued", |f| f.queued.into()),
        ("reread", |f| f.reread.into()),
        ("new among the reread", |f| f.reread_new.into()),
        ("quarantined of the reread", |f| f.reread_quarantined.into()),
    ];
    for (name, column) in columns {
        let sum: i128 = poll.queues.iter().map(|queue| column(&queue.figures)).sum();
        same(format_args!("audit: the sum of {name} over the queues"), sum, column(&poll.total))?;
    }
    Ok(())
}

/// What a certificate says of itself: whether the count is complete.
///
/// # Errors
/// When it says that and something else, too; or that its books don't add up.
pub fn status(certificate: &Certificate) -> Checked {
    let Certificate { status, outstanding, problems, audit, closed_at, final_at, .. } = certificate;
    if let Some(problem) = problems.iter().chain(&audit.problems).next() {
        return Err(format!("the books did not add up when this certificate was forced: {problem}"));
    }
    match status {
        Status::Forced => Ok(Vec::new()),
        Status::Final => {
            let is_final = audit.polls.iter().all(|poll| poll.state == PollState::Final);
            if let Some(text) = outstanding.iter().chain(&audit.outstanding).next() {
                return Err(format!("the certificate says that it is final, and also: {text}"));
            }
            match (closed_at, final_at) {
                (Some(closed_at), Some(final_at)) if is_final && audit.verdict == Verdict::Holds => {
                    Ok(vec![format!("the poll was closed at {closed_at} and is final since {final_at}")])
                }
                _ => Err("the certificate says that it is final, its audit does not".to_owned()),
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
