//! Checks of a Redis' settings and state: whether it keeps what it acknowledges.

use std::sync::atomic::{AtomicBool, Ordering};

use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike, ConfigInterface},
    types::{ClusterHash, CustomCommand, InfoKind},
};

use crate::DurabilityProblem;

/// Settings that an operator has to make: name, value, and what happens otherwise.
const DURABLE: [(&str, &str, &str); 4] = [
    ("appendonly", "yes", "or nothing is written to disk"),
    ("appendfsync", "always", "or votes are acknowledged before they are on disk"),
    (
        "no-appendfsync-on-rewrite",
        "no",
        "or votes are acknowledged before they are on disk while the append-only file is rewritten",
    ),
    ("maxmemory-policy", "noeviction", "or votes are deleted when memory is full"),
];

/// Commands that a restart must be able to replay from the append-only file: those that write votes, their counts,
/// the queue and its polls.
///
/// The file holds what a script wrote as a transaction, and most versions of Redis and Valkey replay transactions as
/// the user `default`: commands that this user may not run are skipped without any error (redis/redis#14541,
/// valkey-io/valkey#3983). So `default` must have all rights; it may be `off`, so that no client can log in as it.
const REPLAYED: [&[&str]; 4] = [
    &["XADD", "{}:1:p:0", "*", "f", "x"],
    &["HINCRBY", "{}:1:a:0", "x", "1"],
    &["SET", "{}:id", "x"],
    &["HSET", "{}:1:polls", "x", "x"],
];

/// Returns what keeps votes from surviving a power failure. `began_late` is set as long as the append-only file is known
/// not to hold what came before it was switched on.
pub(super) async fn problems(
    client: &Client,
    prefix: &str,
    began_late: &AtomicBool,
) -> Result<Vec<DurabilityProblem>, Error> {
    let mut problems = Vec::new();
    for (name, wanted, otherwise) in DURABLE {
        let reply: Vec<String> = client.config_get(name).await?;
        let found = reply.get(1).map(String::as_str);
        if found != Some(wanted) {
            let found = found.unwrap_or("unset").to_owned();
            let of = "Redis".to_owned();
            problems.push(DurabilityProblem::Setting { of, name, found, wanted, otherwise });
        }
    }
    let info: String = client.info(Some(InfoKind::Persistence)).await?;
    problems.extend(file_problem(&AppendOnlyFile::parse(&info), began_late));
    problems.extend(not_replayed(client, prefix).await?);
    let info: String = client.info(Some(InfoKind::Replication)).await?;
    if info.lines().any(|line| line.trim() == "role:slave") {
        problems.push(DurabilityProblem::Replica);
    }
    Ok(problems)
}

/// State of the append-only file, from `INFO persistence`.
struct AppendOnlyFile {
    enabled: bool,
    rewriting: bool,
    rewritten: bool,
    written: bool,
    /// Whether there is a base file, with what came before the log began. Assumed for servers that do not report its
    /// size.
    has_base: bool,
}

impl AppendOnlyFile {
    fn parse(info: &str) -> Self {
        let is = |line: &str| info.lines().any(|found| found.trim() == line);
        Self {
            enabled: is("aof_enabled:1"),
            rewriting: is("aof_rewrite_in_progress:1"),
            rewritten: is("aof_last_bgrewrite_status:ok"),
            written: !is("aof_last_write_status:err"),
            has_base: !is("aof_base_size:0"),
        }
    }
}

/// Returns what is wrong with the append-only file, if anything.
///
/// A file that is switched on while Redis runs is of use only after its first rewrite: until then a restart reads the
/// files from before, or none. Redis keeps reporting the size of the base from before the file was switched off, so a
/// base does not prove that the first rewrite is done. A file that has its base loses nothing during a later rewrite,
/// nor if that one fails.
fn file_problem(file: &AppendOnlyFile, began_late: &AtomicBool) -> Option<DurabilityProblem> {
    if !file.enabled {
        began_late.store(true, Ordering::Relaxed);
        // The problem reported for the setting `appendonly` is enough.
        return None;
    }
    if !file.rewriting && file.rewritten {
        began_late.store(false, Ordering::Relaxed);
    }
    if !file.written {
        Some(DurabilityProblem::FileNotWritten)
    } else if (file.rewriting || !file.rewritten) && (began_late.load(Ordering::Relaxed) || !file.has_base) {
        Some(DurabilityProblem::FileIncomplete { rewriting: file.rewriting })
    } else {
        None
    }
}

/// Returns which of the [`REPLAYED`] commands the user `default` may not run, if any.
async fn not_replayed(client: &Client, prefix: &str) -> Result<Option<DurabilityProblem>, Error> {
    for command in REPLAYED {
        let dry_run = CustomCommand::new_static("ACL", ClusterHash::FirstKey, false);
        let args = ["DRYRUN", "default"].into_iter().chain(command.iter().copied());
        let args: Vec<String> = args.map(|arg| arg.replace("{}", prefix)).collect();
        let answer: String = match client.custom(dry_run, args).await {
            Ok(answer) => answer,
            Err(e) if e.details().starts_with("NOPERM") => {
                return Ok(Some(DurabilityProblem::ReplayUnknown));
            }
            Err(e) => return Err(e),
        };
        if answer != "OK" {
            return Ok(Some(DurabilityProblem::ReplayRefused { refusal: answer }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rewriting: u8, status: &str, base: u64) -> AppendOnlyFile {
        AppendOnlyFile::parse(&format!(
            "# Persistence\r\naof_enabled:1\r\naof_rewrite_in_progress:{rewriting}\r\n\
             aof_last_bgrewrite_status:{status}\r\naof_last_write_status:ok\r\naof_base_size:{base}\r\n"
        ))
    }

    #[test]
    fn the_first_rewrite_of_the_file_must_be_complete() {
        let late = AtomicBool::new(false);
        assert!(file_problem(&info(1, "ok", 0), &late).is_some(), "it is running");
        assert!(file_problem(&info(0, "err", 0), &late).is_some(), "it failed");
        assert_eq!(file_problem(&info(0, "ok", 89), &late), None);
    }

    #[test]
    fn a_later_rewrite_is_no_problem() {
        let late = AtomicBool::new(false);
        assert_eq!(file_problem(&info(1, "ok", 89), &late), None);
        assert_eq!(file_problem(&info(0, "err", 89), &late), None, "the file still has its base");
    }

    #[test]
    fn an_old_base_does_not_vouch_for_a_file_that_was_off() {
        let late = AtomicBool::new(false);
        assert_eq!(file_problem(&AppendOnlyFile { enabled: false, ..info(0, "ok", 89) }, &late), None);
        assert!(file_problem(&info(1, "ok", 89), &late).is_some());
        assert_eq!(file_problem(&info(0, "ok", 99), &late), None);
        assert_eq!(file_problem(&info(1, "ok", 99), &late), None, "the first rewrite is complete");
    }
}
