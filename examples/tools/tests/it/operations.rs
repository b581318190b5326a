//! Tests that docs/operations.md and docs/settings.md are correct.

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use vote_service::settings;
use vote_testkit::{Postgres, Service, http};

use crate::world::{Process, World, cookie, eventually};

const TWO_POLLS: &str = "[[poll]]\nslug = \"pets\"\ntitle = \"Pets?\"\n\
    options = [{ slug = \"cats\", label = \"Cats\" }, { slug = \"dogs\", label = \"Dogs\" }]\n";
const SNACK: &str = "[[poll]]\nslug = \"snack\"\ntitle = \"Snack?\"\n\
    options = [{ slug = \"crisps\", label = \"Crisps\" }, { slug = \"popcorn\", label = \"Popcorn\" }]\n";

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Parses the table whose header begins with `header`: the further cells of each row by its first cell, without
/// backticks. No name may occur twice.
fn table<'a>(page: &'a str, header: &str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(header));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let twice = table.insert(cells[0].trim_matches('`'), cells[1..].to_vec());
        assert_eq!(twice, None, "{row}");
    }
    assert!(!table.is_empty(), "no table begins with {header}");
    table
}

#[test]
fn the_page_of_settings_lists_each_setting_with_its_services_and_defaults() {
    let page = file("docs/settings.md");
    let rows = table(&page, "| setting |");
    let names: Vec<&str> = settings::ALL.iter().map(|setting| setting.name).collect();
    assert_eq!(rows.len(), names.len(), "{:?}", rows.keys());
    let services = ["frontend", "worker", "results"].map(|service| {
        let help = Command::new(Service::binary(&format!("vote-{service}"))).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        (service, help.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    for setting in settings::ALL {
        let name = setting.name;
        let Some([of, default, in_file, what]) = rows.get(name).map(|row| &row[..]) else { panic!("{name}") };
        assert_eq!(in_file.trim_matches('`'), setting.file_name().unwrap_or_default(), "{name}");
        assert_eq!(*what, setting.help, "{name}");
        let has =
            |help: &str| help.contains(&format!("[env: {name}]")) || help.contains(&format!("[env: {name},"));
        let using: Vec<_> = services.iter().filter(|(_, help)| has(help)).collect();
        let expected = if using.len() == services.len() {
            "all".to_owned()
        } else {
            using.iter().map(|(service, _)| *service).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(*of, expected, "{name}");
        let defaults: Vec<(&str, &str)> = using
            .iter()
            .filter_map(|(service, help)| {
                let (_, rest) = help.split_once(&format!("[env: {name}] [default: "))?;
                Some((*service, rest.split_once(']')?.0))
            })
            .collect();
        let expected = match &defaults[..] {
            [] => String::new(),
            [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) => format!("`{first}`"),
            all => all.iter().map(|(service, d)| format!("{service} `{d}`")).collect::<Vec<_>>().join(", "),
        };
        assert_eq!(*default, expected, "{name}");
    }
}

#[test]
fn the_page_of_settings_lists_every_variable_of_the_stack_with_its_default() {
    let page = file("docs/settings.md");
    let rows = table(&page, "| variable |");
    let mut used = BTreeMap::new();
    for name in ["deploy/stack.yml", "deploy/stack.tls.yml"] {
        let text = file(name);
        let text =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
        for (at, _) in text.match_indices("${") {
            let (variable, _) = text[at + 2..].split_once('}').unwrap();
            let (variable, default) =
                variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default"));
            let before = used.insert(variable.to_owned(), default.to_owned());
            assert!(before.is_none_or(|before| before == default), "{variable} has two defaults");
        }
    }
    let documented: BTreeMap<String, String> =
        rows.iter().map(|(name, row)| ((*name).to_owned(), row[0].trim_matches('`').to_owned())).collect();
    assert_eq!(documented, used, "documented (left) and used in the stack (right)");
}

#[test]
fn the_handbook_lists_every_alert_with_its_severity() {
    let page = file("docs/operations.md");
    let alerts = file("deploy/prometheus/alerts.yml");
    let of = |line: &str| Some(line.trim().strip_prefix("- alert: ")?.to_owned());
    let severity =
        |line: &str| Some(line.trim().strip_prefix("labels: {severity: ")?.split_once('}')?.0.to_owned());
    let names: Vec<String> = alerts.lines().filter_map(of).collect();
    let severities: Vec<String> = alerts.lines().filter_map(severity).collect();
    assert_eq!(names.len(), severities.len());
    let raised: BTreeMap<String, String> = names.into_iter().zip(severities).collect();
    let documented = table(&page, "| alert |");
    let documented: BTreeMap<String, String> =
        documented.iter().map(|(name, row)| ((*name).to_owned(), row[0].to_owned())).collect();
    assert_eq!(documented, raised, "documented (left) and defined (right)");
}

/// Casts votes of this number of new voters, and returns their receipts.
fn cast(frontend: &Process, poll: &str, option: &str, votes: usize) -> Vec<String> {
    let path = format!("/polls/{poll}/votes");
    let body = format!(r#"{{"option": "{option}"}}"#);
    let cast_one = || {
        let page = http(frontend.public, "GET", &format!("/polls/{poll}"), &[], b"").unwrap();
        let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let headers = [("content-type", "application/json"), ("cookie", cookie.as_str())];
        let answer = http(frontend.public, "POST", &path, &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 202);
        let accepted: Value = serde_json::from_slice(&answer.body).unwrap();
        accepted["receipt"].as_str().unwrap().to_owned()
    };
    std::iter::repeat_with(cast_one).take(votes).collect()
}

#[track_caller]
fn counted(world: &World, votes: usize) {
    eventually("all votes are counted", Duration::from_secs(30), || {
        world.psql("SELECT count(*) FROM vote.votes") == votes.to_string()
    });
}

fn has_finding(audit: &Value, list: &str, code: &str) -> bool {
    audit[list].as_array().unwrap().iter().any(|finding| finding["code"] == code)
}

/// Returns the block of SQL that follows a mark in the handbook.
fn sql(mark: &str) -> String {
    let page = file("docs/operations.md");
    let (_, rest) = page.split_once(&format!("<!-- {mark} -->\n```sql\n")).expect("the page has it");
    rest.split_once("```").unwrap().0.to_owned()
}

/// Removes one of two nodes and retires its queue, as the handbook says. Returns the queue, as the database writes it.
fn remove_a_node(world: &mut World) -> String {
    let removed = world.psql("SELECT queue FROM vote.queues ORDER BY address LIMIT 1");
    let address = world.psql("SELECT address FROM vote.queues ORDER BY address LIMIT 1");
    let node =
        world.redis.iter().position(|redis| redis.url().ends_with(address.rsplit('/').next().unwrap()));
    let node = node.expect("the queue is on one of these servers");
    drop(world.frontends.remove(node));
    world.redis[node].kill9();
    eventually("the audit names the queue", Duration::from_secs(20), || {
        has_finding(&world.audit().1, "outstanding", "not-heard-from")
    });
    let id = removed.replace('-', "");
    let early =
        world.command("vote-worker", &["queues", "retire", &id, "--reason", "drained, node 1 removed"]);
    assert_eq!(early.status.code(), Some(1), "the queue was seen less than half a minute ago");
    world.psql(&format!(
        "UPDATE vote.queues SET seen_at = seen_at - interval '1 minute' WHERE queue = '{removed}'"
    ));
    world.must("vote-worker", &["queues", "retire", &id, "--reason", "drained, node 1 removed"]);
    removed
}

/// What the ledger has of the erased poll: queues, accepted votes, new voters and superseded votes.
const SUMS_OF_PETS: &str = "
    SELECT count(DISTINCT queue), sum(accepted), sum(new_voters), sum(superseded) FROM vote.ledger WHERE poll = 'pets'";

fn assert_only_sums_are_left(world: &World, removed: &str) {
    for table in ["votes", "tally", "options", "polls"] {
        let others =
            format!("SELECT count(*) FROM vote.{table} WHERE poll NOT IN (SELECT poll FROM vote.polls)");
        assert_eq!(world.psql(&others), "0", "{table}");
    }
    assert_eq!(world.psql("SELECT slug FROM vote.polls"), "snack");
    assert_eq!(world.psql("SELECT count(*) FROM vote.votes"), "6");
    for table in ["seals", "quarantine"] {
        assert_eq!(
            world.psql(&format!("SELECT count(*) FROM vote.{table} WHERE poll = 'pets'")),
            "0",
            "{table}"
        );
    }
    assert_eq!(world.psql(SUMS_OF_PETS), "1|5|0|5", "the sums of the remaining queue are kept");
    assert_eq!(
        world.psql(&format!("SELECT accepted FROM vote.queues WHERE queue = '{removed}'")),
        "{\"snack\": 3}"
    );
}

#[test]
fn erasing_a_poll_leaves_at_most_sums_and_does_not_change_other_polls() {
    let mut world = World::with_polls(2, &format!("{TWO_POLLS}{SNACK}"));
    let worker = world.worker("2");
    world.wait_until_ready();
    let mut erased = Vec::new();
    for frontend in &world.frontends {
        erased.extend(cast(frontend, "pets", "cats", 5));
        cast(frontend, "snack", "crisps", 3);
    }
    counted(&world, 16);
    world.assert_audit_holds();

    world.psql(&sql("erase"));
    assert_eq!(world.psql("SELECT count(*) FROM vote.votes"), "16", "a poll that is not final is not erased");
    world.must("vote-worker", &["polls", "close", "pets"]);
    eventually("the poll is final", Duration::from_secs(20), || {
        world.psql("SELECT count(*) FROM vote.polls WHERE final_at IS NOT NULL") == "1"
    });
    let removed = remove_a_node(&mut world);
    world.assert_audit_holds();

    world.set_polls(SNACK);
    // Workers register the polls of their file whenever the store lacks one.
    worker.service.signal("KILL");
    let worker = world.worker("2");
    worker.wait_until_ready();
    world.psql(&sql("erase"));
    assert_only_sums_are_left(&world, &removed);

    cast(&world.frontends[0], "snack", "popcorn", 40);
    counted(&world, 46);
    worker.service.signal("KILL");
    let _worker = world.worker("2");
    cast(&world.frontends[0], "snack", "popcorn", 40);
    counted(&world, 86);
    let audit = world.assert_audit_holds();
    for receipt in erased {
        let path = format!("/receipts/{receipt}");
        let answer =
            http(world.results.public, "GET", &path, &[("accept", "application/json")], b"").unwrap();
        assert!(answer.text().contains("\"erased\""), "{}", answer.text());
    }
    assert_eq!(world.results.metric("vote_results_unaccounted_receipts_total"), 0.0);
    assert_eq!(world.psql(SUMS_OF_PETS), "1|5|0|5");
    assert_eq!(world.psql("SELECT slug FROM vote.polls"), "snack", "the erased poll is not registered again");
    let states: Vec<(&str, &str, i64)> = audit["polls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|poll| {
            let text = |name: &str| poll[name].as_str().unwrap();
            (text("poll"), text("state"), poll["tally"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(states, [("snack", "open", 86), ("pets", "unregistered", 0)]);
    world.assert_conserved();
}

/// A pipeline whose database was restored from a backup, after which votes had been committed.
struct Restored {
    world: World,
    worker: Process,
}

fn restored(trim_delay: &str) -> Restored {
    let world = World::start(1);
    let queue = world.redis[0].url();
    let start = || world.worker_of(&queue, "2", &[("VOTE_TRIM_DELAY", trim_delay)]);
    let worker = start();
    world.wait_until_ready();
    cast(&world.frontends[0], "pets", "cats", 30);
    counted(&world, 30);
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("votes.dump");
    let (postgres, store) = (Postgres::shared(), world.store_url());
    let database = store.rsplit('/').next().unwrap();
    let mut backup = postgres.client("pg_dump");
    backup.args(["--format=custom", database]).stdout(File::create(&dump).unwrap());
    assert!(backup.status().unwrap().success());
    cast(&world.frontends[0], "pets", "dogs", 30);
    counted(&world, 60);
    // Long enough to trim committed entries, unless there is a delay, and to report the queue.
    std::thread::sleep(Duration::from_secs(4));

    // The frontend keeps accepting votes.
    for process in [&worker, &world.results] {
        process.service.signal("TERM");
        process.service.wait_exit(Duration::from_secs(20)).expect("the service ends");
    }
    cast(&world.frontends[0], "pets", "cats", 10);
    postgres.psql("postgres", &format!("ALTER DATABASE {database} RENAME TO {database}_before"));
    let mut restore = postgres.client("pg_restore");
    restore.args(["--dbname=postgres", "--create"]).stdin(File::open(&dump).unwrap()).stdout(Stdio::null());
    assert!(restore.status().unwrap().success());
    assert_eq!(world.psql("SELECT count(*) FROM vote.votes"), "30", "the store lost the later votes");
    let worker = start();
    Restored { worker, world }
}

#[test]
fn with_a_trim_delay_a_restored_store_recovers_later_votes_from_the_queues() {
    let Restored { world, worker } = restored("3600");
    counted(&world, 70);
    let audit = world.assert_audit_holds();
    assert_eq!(audit["polls"][0]["accepted"], 70, "{audit:#}");
    assert_eq!(audit["polls"][0]["reread"], 0, "{audit:#}");
    world.assert_conserved();
    // New votes are counted as well.
    assert_eq!(
        crate::world::vote(world.frontends[0].public, "dogs", &cookie(world.frontends[0].public)).status,
        202
    );
    counted(&world, 71);
    drop(worker);
}

#[test]
fn without_a_trim_delay_the_audit_of_a_restored_store_names_the_diverged_queue() {
    let Restored { world, worker } = restored("0");
    eventually("the audit names the queue", Duration::from_secs(30), || {
        let (code, audit) = world.audit();
        code == 1 && has_finding(&audit, "problems", "diverged")
    });
    drop(worker);
}
