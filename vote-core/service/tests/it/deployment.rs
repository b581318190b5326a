//! What the files of the deployment say to the services, the services know.

use std::{collections::BTreeSet, fs, path::Path};

use vote_service::settings;

/// Variables that a file gives to a service: `VOTE_LISTEN: …` in YAML, `VOTE_LISTEN=…` in units and images.
fn given(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("VOTE_") {
        let length = text[at..].find(|c| !is_name(c)).unwrap_or(text.len() - at);
        let (name, rest) = (&text[at..at + length], &text[at + length..]);
        // Not those that the file itself is told: `${VOTE_VERSION:-…}`.
        let is_told = text[..at].ends_with("${");
        if !is_told && (rest.starts_with(':') || rest.starts_with('=')) {
            names.insert(name);
        }
    }
    names
}

#[test]
fn every_variable_that_the_deployment_sets_is_a_setting() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let known: BTreeSet<String> = settings::ALL
        .iter()
        .flat_map(|setting| [Some(setting.name.to_owned()), setting.file_name()])
        .flatten()
        .collect();
    let mut found = BTreeSet::new();
    for file in [
        "stack.yml",
        "compose.yml",
        "../Dockerfile",
        "systemd/vote-frontend.service",
        "systemd/vote-worker@.service",
        "systemd/vote-results.service",
    ] {
        let text = fs::read_to_string(deploy.join(file)).unwrap();
        // Comments may speak of anything.
        let text: String =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
        let names = given(&text);
        assert!(!names.is_empty(), "{file} sets something");
        for name in names {
            assert!(known.contains(name), "{file} sets {name}, which no service knows");
            found.insert(name.to_owned());
        }
    }
    assert!(found.contains("VOTE_PEPPER_FILE") && found.contains("VOTE_ADMIN_LISTEN"), "{found:?}");
}

#[test]
fn what_a_file_is_told_is_not_what_it_says() {
    let text = "image: ${VOTE_REGISTRY:-}x\nVOTE_TLS: ${VOTE_TLS:-false}\nEnvironment=VOTE_LISTEN=[::]:80 VOTE_MIGRATE=true";
    assert_eq!(given(text).into_iter().collect::<Vec<_>>(), ["VOTE_LISTEN", "VOTE_MIGRATE", "VOTE_TLS"]);
}
