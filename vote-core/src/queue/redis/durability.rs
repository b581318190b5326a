//! Whether a Redis keeps what it acknowledges, so far as its settings tell.

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

/// What a restart must do again of the log: votes, their counts, the box and its seals.
///
/// The log has what a script did as a transaction, and most versions of Redis and Valkey execute those as the user `default`: what
/// that user may not do is left out without an error to anybody (redis/redis#14541, valkey-io/valkey#3983). So
/// `default` must have all rights; it may be `off`, so that nobody can be it.
const REPLAYED: [&[&str]; 4] = [
    &["XADD", "{}:p:0", "*", "f", "x"],
    &["HINCRBY", "{}:accepted", "x", "1"],
    &["SET", "{}:id", "x"],
    &["SADD", "{}:sealed", "x"],
];

/// What keeps votes from surviving the loss of power, each in words that say what to change.
pub(super) async fn problems(client: &Client, prefix: &str) -> Result<Vec<String>, Error> {
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
    if info.lines().any(|line| line.trim() == "aof_last_write_status:err") {
        problems.push("Redis could not write its append-only file: is the disk full?".to_owned());
    }
    problems.extend(not_replayed(client, prefix).await?);
    Ok(problems)
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
