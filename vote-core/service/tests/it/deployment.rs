//! The services know every setting that the deployment files give them.

use std::{collections::BTreeSet, fs, path::Path};

use vote_service::settings;

/// Returns the variables that a file sets for a service: `VOTE_LISTEN: …` in YAML, `VOTE_LISTEN=…` in units and images.
fn given(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("VOTE_") {
        let length = text[at..].find(|c| !is_name(c)).unwrap_or(text.len() - at);
        let (name, rest) = (&text[at..at + length], &text[at + length..]);
        // Not those that the file reads itself: `${VOTE_VERSION:-…}`.
        let is_read = text[..at].ends_with("${");
        if !is_read && (rest.starts_with(':') || rest.starts_with('=')) {
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
        // Comments may mention other variables.
        let text: String =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
        let names = given(&text);
        assert!(!names.is_empty(), "{file} sets no variable");
        for name in names {
            assert!(known.contains(name), "{file} sets {name}, which no service has as a setting");
            found.insert(name.to_owned());
        }
    }
    assert!(found.contains("VOTE_PEPPER_FILE") && found.contains("VOTE_ADMIN_LISTEN"), "{found:?}");
}

#[test]
fn variables_that_a_file_reads_are_not_variables_that_it_sets() {
    let text = "image: ${VOTE_REGISTRY:-}x\nVOTE_TLS: ${VOTE_TLS:-false}\n\
                Environment=VOTE_LISTEN=[::]:80 VOTE_MIGRATE=true";
    assert_eq!(given(text).into_iter().collect::<Vec<_>>(), ["VOTE_LISTEN", "VOTE_MIGRATE", "VOTE_TLS"]);
}
