//! `certificate.html`: the certificate for people, to be printed. No scripts, nothing loaded from elsewhere. Pure.

use std::fmt::{self, Write};

use vote_core::{
    Keep, Timestamp,
    count::{
        QueueState,
        audit::{Figures, PollAudit, QueueAudit},
    },
};
use vote_service::respond::escape_html as escape;

use super::{Certificate, CertificateStatus, PublicKey, files};
use crate::{snapshot::Percent, thousands::grouped};

const STYLE: &str = include_str!("page/print.css");

/// Renders the page of a certificate that is signed with this key. Deterministic: equal certificates give equal pages.
#[must_use]
pub fn page(certificate: &Certificate, key: &PublicKey) -> String {
    let mut page = String::new();
    // Writing to a String can't fail.
    let _ = write_page(&mut page, certificate, key);
    page
}

fn write_page(page: &mut String, certificate: &Certificate, key: &PublicKey) -> fmt::Result {
    let Certificate { poll, status, .. } = certificate;
    let title = escape(&poll.title);
    let (kind, class, stamp) = match status {
        CertificateStatus::Final => ("Certified result", "final", "FINAL"),
        CertificateStatus::Forced => ("PROVISIONAL result", "forced", "PROVISIONAL"),
    };
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{kind}: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p>{kind} of the poll <code>{}</code></p>\n<h1>{title}</h1>\n\
         <p><strong class=\"status {class}\">{stamp}</strong></p>\n",
        poll.slug
    )?;
    provisional(page, certificate)?;
    result(page, certificate)?;
    count(page, certificate)?;
    for poll in &certificate.audit.polls {
        accounts(page, poll)?;
        not_counted(page, poll)?;
    }
    proof(page, certificate, key)?;
    page.write_str("</main>\n</body>\n</html>\n")
}

/// Writes a prominent note on what is outstanding or wrong, if the certificate was forced.
fn provisional(page: &mut String, certificate: &Certificate) -> fmt::Result {
    if certificate.status == CertificateStatus::Final {
        return Ok(());
    }
    page.write_str(
        "<section class=\"note\" aria-labelledby=\"provisional\">\n\
         <h2 id=\"provisional\">PROVISIONAL: the numbers on this page may still change</h2>\n\
         <p>This certificate was forced before the count was final.</p>\n",
    )?;
    for (head, findings) in
        [("Accounting errors", &certificate.problems), ("Outstanding", &certificate.outstanding)]
    {
        if findings.is_empty() {
            continue;
        }
        writeln!(page, "<p>{head}:</p>\n<ul>")?;
        for finding in findings {
            writeln!(page, "<li>{}</li>", escape(&finding.to_string()))?;
        }
        page.write_str("</ul>\n")?;
    }
    page.write_str("</section>\n")
}

fn result(page: &mut String, certificate: &Certificate) -> fmt::Result {
    let total = certificate.result.total;
    page.write_str(
        "<table class=\"result\">\n<caption>Votes for each option, one per voter</caption>\n\
         <thead><tr><th scope=\"col\">Option</th><th scope=\"col\" class=\"number\">Votes</th>\
         <th scope=\"col\" class=\"number\">Share</th></tr></thead>\n<tbody>\n",
    )?;
    for (label, votes) in certificate.outcome() {
        writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}%</td></tr>",
            escape(label),
            grouped(votes),
            Percent::of(votes, total)
        )?;
    }
    writeln!(
        page,
        "</tbody>\n<tfoot><tr><th scope=\"row\">Total</th><td class=\"number\">{}</td><td></td></tr></tfoot>\n</table>",
        grouped(total)
    )
}

/// Writes when and by which rule the votes were counted.
fn count(page: &mut String, certificate: &Certificate) -> fmt::Result {
    let rule = match certificate.poll.keep {
        Keep::First => "the first",
        Keep::Last => "the last",
    };
    writeln!(page, "<p>One vote per voter counts: {rule}.")?;
    match (&certificate.closed_at, &certificate.final_at) {
        (Some(closed), Some(last)) => writeln!(
            page,
            "The poll closed at {}, and its count became final at {}.",
            time(closed),
            time(last)
        )?,
        (Some(closed), None) => {
            writeln!(page, "The poll closed at {}; its count is not final.", time(closed))?
        }
        _ => writeln!(page, "The poll is not closed.")?,
    }
    for moved in certificate.audit.polls.iter().flat_map(|poll| &poll.reschedules) {
        let time = |at: Option<Timestamp>| {
            at.map_or_else(|| "closing by hand".to_owned(), |at| time(&at.to_string()))
        };
        writeln!(
            page,
            "Its closing time was changed from {} to {} at {}: {}.",
            time(moved.from),
            time(moved.to),
            time(Some(moved.at)),
            escape(&moved.reason)
        )?;
    }
    writeln!(page, "All figures are as of {}.</p>", time(&certificate.created_at))
}

/// Writes the accounts of all votes, queue by queue.
fn accounts(page: &mut String, poll: &PollAudit) -> fmt::Result {
    page.write_str(
        "<h2>Every accepted vote is accounted for</h2>\n\
         <p>Votes are accepted by queues. For each queue, and for all of them together: accepted = new voters + \
         superseded + quarantined. A vote is <em>superseded</em> if its voter already had one, and \
         <em>quarantined</em> if it could not be counted and is kept separately. <em>Reread</em> votes were read from \
         the remaining data of a queue that lost some, and may have been counted before; <em>reread new</em> votes \
         are those of voters who had no vote yet.</p>\n\
         <table class=\"accounts\">\n<caption>Accounts of all accepted votes</caption>\n\
         <thead><tr><th scope=\"col\">Queue</th>",
    )?;
    for column in
        ["Accepted", "New voters", "Superseded", "Quarantined", "Reread", "Reread new", "Still queued"]
    {
        write!(page, "<th scope=\"col\" class=\"number\">{column}</th>")?;
    }
    page.write_str("</tr></thead>\n<tbody>\n")?;
    for queue in &poll.queues {
        write!(page, "<tr><th scope=\"row\"><code>{}</code></th>", escape(&queue.queue))?;
        cells(page, &queue.figures)?;
    }
    page.write_str("</tbody>\n<tfoot><tr><th scope=\"row\">All queues</th>")?;
    cells(page, &poll.total)?;
    let Figures { new_voters, reread_new, .. } = poll.total;
    let effective = new_voters.saturating_add(reread_new);
    writeln!(
        page,
        "</tfoot>\n</table>\n<p>{} new voters + {} reread new = {} counted ballots; {} in the tally; {} counted row by \
         row.</p>",
        grouped(new_voters),
        grouped(reread_new),
        grouped(effective),
        poll.tally,
        poll.rows.map_or_else(|| "not".to_owned(), grouped),
    )
}

fn cells(page: &mut String, figures: &Figures) -> fmt::Result {
    let quarantined = figures.quarantined;
    for cell in [
        grouped(figures.accepted),
        grouped(figures.new_voters),
        grouped(figures.superseded),
        u64::try_from(quarantined).map_or_else(|_| quarantined.to_string(), grouped),
        grouped(figures.reread),
        grouped(figures.reread_new),
        grouped(figures.queued),
    ] {
        write!(page, "<td class=\"number\">{cell}</td>")?;
    }
    page.write_str("</tr>\n")
}

/// Writes which votes are not counted or lost, and why.
fn not_counted(page: &mut String, poll: &PollAudit) -> fmt::Result {
    page.write_str("<h2>Votes that are not counted</h2>\n")?;
    let not_active: Vec<&QueueAudit> =
        poll.queues.iter().filter(|queue| queue.state != QueueState::Active).collect();
    let quarantined = i128::from(poll.total.quarantined) + i128::from(poll.total.reread_quarantined);
    if quarantined != 0 {
        writeln!(
            page,
            "<p>Votes that could not be counted and are kept, with the reasons, in the quarantine of the store: \
             {quarantined}.</p>"
        )?;
    }
    if not_active.is_empty() {
        return page.write_str("<p>No queue lost data or was retired.</p>\n");
    }
    page.write_str("<dl>\n")?;
    for queue in not_active {
        let state = if queue.state == QueueState::Retired { "was retired" } else { "lost data" };
        writeln!(
            page,
            "<dt>Queue <code>{}</code> at {} {state}</dt>\n<dd>{}<br>It had reported {} accepted votes for this poll. \
             {} accepted votes were read, of which {} are missing; {} votes were reread from its remaining data.</dd>",
            escape(&queue.queue),
            escape(&queue.address),
            escape(&queue.reason),
            grouped(queue.reported),
            grouped(queue.figures.accepted),
            queue.figures.unaccounted(false),
            grouped(queue.figures.reread),
        )?;
    }
    page.write_str("</dl>\n")
}

/// Writes what is signed and how to check it.
fn proof(page: &mut String, certificate: &Certificate, key: &PublicKey) -> fmt::Result {
    let software = &certificate.software;
    let commit =
        software.commit.as_ref().map_or_else(String::new, |commit| format!(", commit {}", escape(commit)));
    writeln!(
        page,
        "<h2>How to check this</h2>\n\
         <p>The file <code>{ballots}</code> lists all {count} counted ballots by voter keys, which do not reveal who \
         the voters are. Its SHA-256 is</p>\n<pre>{sha256}</pre>\n\
         <p>It is recorded in <code>{json}</code>, which is signed with the Ed25519 key with the fingerprint \
         (SHA-256)</p>\n\
         <pre>{fingerprint}</pre>\n\
         <p>Given these files and the public key from a source you trust, this command recounts the ballots and checks \
         every sum and the signature:</p>\n<pre>vote-results verify DIR --public-key FILE</pre>\n\
         <p>The following commands check the ballots and the signature without our program:</p>\n\
         <pre>sha256sum {ballots}\n\
         openssl pkey -pubin -in {public} -outform DER | sha256sum\n\
         tail -n +2 {ballots} | cut -d, -f1 | LC_ALL=C sort -c -u &amp;&amp; echo 'each voter once'\n\
         tail -n +2 {ballots} | cut -d, -f2 | LC_ALL=C sort | uniq -c\n\
         xxd -r -p {sig} signature.bin\n\
         openssl pkeyutl -verify -pubin -inkey {public} -rawin -in {json} -sigfile signature.bin</pre>\n\
         <p>Written by {name} {version}{commit} at {created}.</p>",
        ballots = files::BALLOTS,
        json = files::CERTIFICATE,
        public = files::PUBLIC_KEY,
        sig = files::SIGNATURE,
        count = grouped(certificate.ballots.count),
        sha256 = escape(&certificate.ballots.sha256),
        fingerprint = key.fingerprint(),
        name = escape(&software.name),
        version = escape(&software.version),
        created = time(&certificate.created_at),
    )
}

/// Formats an RFC 3339 time for people, to the second.
fn time(exact: &str) -> String {
    let exact = escape(exact);
    let shown = exact.get(..19).unwrap_or(&exact).replace('T', " ");
    format!("<time datetime=\"{exact}\">{shown} UTC</time>")
}

#[cfg(test)]
mod tests;
