use std::path::Path;

use super::*;
use crate::certificate::sample::{certificate, forced, queued};

fn key() -> PublicKey {
    let file = tempfile::NamedTempFile::new().unwrap();
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
               -----END PUBLIC KEY-----\n";
    std::fs::write(file.path(), pem).unwrap();
    PublicKey::read(Path::new(file.path())).unwrap()
}

fn rendered(certificate: &Certificate) -> String {
    page(certificate, &key())
}

#[test]
fn a_page_shows_result_accounts_hash_and_key() {
    let page = rendered(&certificate());
    for part in [
        "<h1>Cats or dogs?</h1>",
        "<th scope=\"row\">Cats</th><td class=\"number\">4</td><td class=\"number\">57.1%</td>",
        ">FINAL<",
        "2027-02-15 06:00:00 UTC",
        "<th scope=\"row\">All queues</th><td class=\"number\">7</td>",
        &"ab".repeat(32),
        &key().fingerprint(),
        "vote-results verify DIR --public-key FILE",
        "Written by vote-results 0.1.0 at",
        "@page{size:A4",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("PROVISIONAL"));
}

#[test]
fn a_page_shows_retired_queues_with_the_reason() {
    let page = rendered(&certificate());
    for part in ["node 2 burnt down", "had reported 9 accepted votes", "in the quarantine of the store: 1."] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[test]
fn a_forced_page_starts_with_provisional_and_lists_what_is_outstanding() {
    let page = rendered(&forced());
    assert!(page.contains("<title>PROVISIONAL result: "), "{page}");
    assert!(
        page.contains(" at redis://node-1:6379 has 3 votes queued</li>") && !page.contains(">FINAL<"),
        "{page}"
    );
}

#[test]
fn all_texts_are_escaped() {
    let evil = "<script>alert('x')</script>\" onload=\"y";
    let mut certificate = forced();
    certificate.poll.title = evil.to_owned();
    certificate.poll.options[0].label = evil.to_owned();
    certificate.outstanding = vec![queued(evil)];
    certificate.problems = vec![queued(evil)];
    certificate.software.commit = Some(evil.to_owned());
    for queue in &mut certificate.audit.polls[0].queues {
        (queue.queue, queue.address, queue.reason) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
    }
    let page = rendered(&certificate);
    assert!(!page.contains("<script") && !page.contains("onload=\"y"), "{page}");
    assert!(page.matches("&lt;script&gt;alert").count() >= 9, "{page}");
}

#[test]
fn a_page_loads_nothing_and_has_no_links() {
    let page = rendered(&certificate());
    for part in ["<script", "src=", "href=", "url(", "@import", "http:", "https:"] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn rendering_a_page_is_deterministic() {
    assert_eq!(rendered(&certificate()), rendered(&certificate()));
}
