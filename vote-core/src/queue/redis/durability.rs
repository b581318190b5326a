//! Whether a Redis keeps what it acknowledges, so far as its settings tell.

use std::sync::atomic::{AtomicBool, Ordering};

use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike, ConfigInterface},
    types::{ClusterHash, CustomCommand, InfoKind},
};

/// What an operator has to set, and why.
const DURABLE: [(&str, &str, &str); 4] = [
    ("appendonly", "yes", "or nothing is written to disk"),
    ("appendfsync", "always", "or votes are acknowledged before they are on disk"),
    (
        "no-appendfsync-on-rewrite",
        "no",
        "or votes are acknowledged before they are on disk while the log is rewritten",
    ),
    ("maxmemory-policy", "noeviction", "or votes are thrown away when memory is full"),
];

/// What a restart must do again of the log: votes, their counts, the box and its polls.
///
/// The log has what a script did as a transaction, and most versions of Redis and Valkey execute those as the user `default`: what
/// that user may not do is left out without an error to anybody (redis/redis#14541, valkey-io/valkey#3983). So
/// `default` must have all rights; it may be `off`, so that nobody can be it.
const REPLAYED: [&[&str]; 4] = [
    &["XADD", "{}:p:0", "*", "f", "x"],
    &["HINCRBY", "{}:accepted", "x", "1"],
    &["SET", "{}:id", "x"],
    &["HSET", "{}:polls", "x", "x"],
];

/// What keeps votes from surviving the loss of power, each in words that say what to change. `began_late` is set as long
/// as the log is known not to hold what came before it was switched on.
pub(super) async fn problems(
    client: &Client,
    prefix: &str,
    began_late: &AtomicBool,
) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    for (name, wanted, why) in DURABLE {
        let reply: Vec<String> = client.config_get(name).await?;
        let found = reply.get(1).map(String::as_str);
        if found != Some(wanted) {
            let found = found.unwrap_or("unset");
            problems.push(format!("Redis has {name} {found}, set it to {wanted}, {why}"));
        }
    }
    let info: String = client.info(Some(InfoKind::Persistence)).await?;
    problems.extend(of_the_log(&Log::of(&info), began_late));
    problems.extend(not_replayed(client, prefix).await?);
    Ok(problems)
}

/// What `INFO persistence` says of the append-only file.
struct Log {
    enabled: bool,
    rewriting: bool,
    rewritten: bool,
    written: bool,
    /// Whether there is a file with what came before the log was begun. Servers that do not tell have one.
    has_base: bool,
}

impl Log {
    fn of(info: &str) -> Self {
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

/// What is wrong with the log.
///
/// One that is switched on while Redis runs is of use only once it was rewritten: until then a restart reads the files
/// from before, or none. The log keeps the size of its base from before it was switched off, so that a base alone does
/// not say that the first rewrite is done. A log that has its base loses nothing while it is rewritten again, nor when
/// that fails.
fn of_the_log(log: &Log, began_late: &AtomicBool) -> Option<String> {
    if !log.enabled {
        began_late.store(true, Ordering::Relaxed);
        // What is said of the setting is enough.
        return None;
    }
    if !log.rewriting && log.rewritten {
        began_late.store(false, Ordering::Relaxed);
    }
    if !log.written {
        Some("Redis could not write its append-only file: is the disk full?".to_owned())
    } else if (log.rewriting || !log.rewritten) && (began_late.load(Ordering::Relaxed) || !log.has_base) {
        let why = if log.rewriting { "wait a moment" } else { "it failed: is the disk full?" };
        Some(format!("Redis has not yet written what it holds into its append-only file ({why})"))
    } else {
        None
    }
}

async fn not_replayed(client: &Client, prefix: &str) -> Result<Option<String>, Error> {
    for command in REPLAYED {
        let dry_run = CustomCommand::new_static("ACL", ClusterHash::FirstKey, false);
        let args = ["DRYRUN", "default"].into_iter().chain(command.iter().copied());
        let args: Vec<String> = args.map(|arg| arg.replace("{}", prefix)).collect();
        let answer: String = match client.custom(dry_run, args).await {
            Ok(answer) => answer,
            Err(e) if e.details().starts_with("NOPERM") => {
                return Ok(Some(
                    "Redis does not tell what its user default may do, as which it reads its log at a start: give \
                     this user +acl|dryrun"
                        .to_owned(),
                ));
            }
            Err(e) => return Err(e),
        };
        if answer != "OK" {
            return Ok(Some(format!(
                "Redis reads its log at a start as its user default and leaves out what that may not do ({answer}): \
                 say `user default off ~* &* +@all`"
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rewriting: u8, status: &str, base: u64) -> Log {
        Log::of(&format!(
            "# Persistence\r\naof_enabled:1\r\naof_rewrite_in_progress:{rewriting}\r\n\
             aof_last_bgrewrite_status:{status}\r\naof_last_write_status:ok\r\naof_base_size:{base}\r\n"
        ))
    }

    #[test]
    fn the_first_rewrite_of_a_log_must_be_done() {
        let late = AtomicBool::new(false);
        assert!(of_the_log(&info(1, "ok", 0), &late).is_some(), "it runs");
        assert!(of_the_log(&info(0, "err", 0), &late).is_some(), "it failed");
        assert_eq!(of_the_log(&info(0, "ok", 89), &late), None);
    }

    #[test]
    fn a_later_rewrite_holds_nobody_up() {
        let late = AtomicBool::new(false);
        assert_eq!(of_the_log(&info(1, "ok", 89), &late), None);
        assert_eq!(of_the_log(&info(0, "err", 89), &late), None, "the log is as good as it was");
    }

    #[test]
    fn a_log_that_was_off_is_not_trusted_for_its_old_base() {
        let late = AtomicBool::new(false);
        assert_eq!(of_the_log(&Log { enabled: false, ..info(0, "ok", 89) }, &late), None);
        assert!(of_the_log(&info(1, "ok", 89), &late).is_some());
        assert_eq!(of_the_log(&info(0, "ok", 99), &late), None);
        assert_eq!(of_the_log(&info(1, "ok", 99), &late), None, "that one is done");
    }
}
