//! Commands for operators and observers: they audit the store, certify the result of a poll, and check a certificate.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::runtime::{Builder, Runtime};
use vote_core::{PollSlug, StoreAddress};
use vote_service::{ConfigError, Settings, settings::EX_CONFIG};

use crate::{
    audit,
    certificate::{
        command::{CertifyConfig, VerifyConfig, run_certify, run_verify},
        key,
    },
    config::{schema, store},
    store::LazyStore,
};

const AUDIT: &str = "audit";
const CERTIFY: &str = "certify";
const VERIFY: &str = "verify";

/// The configuration of `audit`.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// Address of the store.
    pub store: StoreAddress,
    /// Schema that holds the tables of the store, on Postgres.
    pub store_schema: String,
    /// The poll to audit; all polls if none.
    pub poll: Option<PollSlug>,
    /// Whether to print JSON instead of a table.
    pub json: bool,
}

/// Runs a command, and returns its exit code.
///
/// # Errors
/// Reports every invalid or missing setting by name.
pub fn run(name: &str, matches: &ArgMatches, settings: Settings) -> Result<ExitCode, ConfigError> {
    Ok(match name {
        AUDIT => run_audit(AuditConfig::new(settings, matches)?),
        CERTIFY => {
            let config = CertifyConfig::new(settings, matches)?;
            let store = LazyStore::new(config.store.clone(), config.store_schema.clone());
            let (mut out, mut err) = (io::stdout(), io::stderr());
            let certifying = run_certify(&config, &store, &mut out, &mut err);
            match one_thread() {
                Ok(runtime) => ExitCode::from(runtime.block_on(certifying)),
                Err(e) => fail(&e, audit::EX_UNAVAILABLE),
            }
        }
        _ => ExitCode::from(run_verify(&VerifyConfig::new(matches), &mut io::stdout(), &mut io::stderr())),
    })
}

/// Runs the audit and exits with its verdict. An error has an exit code of its own, since it says nothing about votes.
fn run_audit(config: AuditConfig) -> ExitCode {
    let store = LazyStore::new(config.store, config.store_schema);
    let runtime = match one_thread() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, audit::EX_UNAVAILABLE),
    };
    match runtime.block_on(audit::audit(&store, config.poll)) {
        Ok(audit) => {
            let text = if config.json {
                serde_json::to_string_pretty(&audit).map(|json| json + "\n").unwrap_or_else(|e| e.to_string())
            } else {
                audit::table(&audit)
            };
            // A closed pipe is no failure: the exit code carries the verdict.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::from(audit.verdict.exit_code())
        }
        Err(e) if e.is_wrong_setting() => fail(&e, EX_CONFIG),
        Err(e) => fail(&e, audit::EX_UNAVAILABLE),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("vote-results: {error}");
    ExitCode::from(code)
}

fn one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl AuditConfig {
    /// Builds the configuration from the settings and the arguments.
    ///
    /// # Errors
    /// Reports every invalid or missing setting by name.
    pub fn new(mut settings: Settings, matches: &ArgMatches) -> Result<Self, ConfigError> {
        let poll = matches.get_one::<PollSlug>("poll").copied();
        let json = matches.get_flag("json");
        let (store, schema) = (store(&mut settings), schema(&mut settings));
        settings.finish_with(store.zip(schema).map(|(store, store_schema)| Self {
            store,
            store_schema,
            poll,
            json,
        }))
    }
}

/// Returns the definitions of all commands.
#[must_use]
pub fn definitions() -> [Command; 3] {
    [audit_command(), certify_command(), verify_command()]
}

fn certify_command() -> Command {
    Command::new(CERTIFY)
        .about(
            "Write the signed result of a poll, with all its ballots and its audit, to a new folder. Exit codes: 0 \
             written, 1 the audit is broken, 2 votes are outstanding, 69 the store can't be read, 73 the folder can't \
             be written, 78 no usable key",
        )
        .arg(poll_argument().required(true).help("Poll to certify"))
        .arg(
            path_argument("out", "DIR")
                .long("out")
                .required(true)
                .help("Folder to create; it may exist if it is empty"),
        )
        .arg(path_argument("key", "FILE").long("key").help(format!(
            "Ed25519 private key to sign with, as unencrypted PKCS#8 PEM; create one with `{}`",
            key::HOW_TO_MAKE
        )))
        .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help(
            "Write a certificate even if votes are outstanding or the audit is broken; it lists why and is PROVISIONAL",
        ))
}

fn verify_command() -> Command {
    Command::new(VERIFY)
        .about(
            "Recount the ballots of a certificate and check its sums and its signature, without a store. Exit codes: 0 \
             valid and final, 1 invalid, 2 valid but forced while votes were outstanding, 78 no usable key",
        )
        .arg(path_argument("dir", "DIR").required(true).help("Folder of the certificate"))
        .arg(path_argument("public-key", "FILE").long("public-key").required(true).help(format!(
            "Ed25519 public key, from a source you trust and not from the folder; the holder of the private key \
             exports it with `{}`",
            key::HOW_TO_PUBLISH
        )))
}

fn path_argument(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).value_name(value).value_parser(value_parser!(PathBuf))
}

fn audit_command() -> Command {
    Command::new(AUDIT)
        .about(
            "Check that every accepted vote is accounted for. Exit codes: 0 all are and nothing is outstanding, 1 \
             accounting errors or lost votes, 2 votes are outstanding or a queue was not heard from, 69 the store can't \
             be read, 78 a setting is wrong",
        )
        .arg(poll_argument().help("Poll to audit [default: all polls]"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
}

fn poll_argument() -> Arg {
    let slug = |text: &str| text.parse::<PollSlug>().map_err(|e| e.to_string());
    Arg::new("poll").long("poll").value_name("SLUG").value_parser(slug)
}

#[cfg(test)]
mod tests {
    use vote_service::{CliExit, cli::EX_USAGE};

    use super::*;

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<(ArgMatches, Settings), CliExit> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let parsed = crate::config::cli(definitions())
            .parse(["vote-results"].iter().chain(args).map(Into::into), env)?;
        Ok((parsed.command.unwrap().1, parsed.settings))
    }

    #[test]
    fn a_certificate_needs_a_poll_a_folder_and_a_key() {
        let env = [("VOTE_STORE", "sqlite:votes.db")];
        let args = ["certify", "--poll", "pets", "--out", "there", "--key", "key.pem"];
        let (matches, settings) = parse(&args, &env).unwrap();
        let config = CertifyConfig::new(settings, &matches).unwrap();
        assert_eq!((config.poll.as_str(), config.out, config.force), ("pets", "there".into(), false));
        assert_eq!(
            parse(&["certify", "--poll", "pets", "--key", "key.pem"], &env).unwrap_err().code,
            EX_USAGE
        );
    }

    #[test]
    fn certifying_without_a_key_is_refused_with_the_command_that_creates_one() {
        let (matches, settings) = parse(&["certify", "--poll", "pets", "--out", "there"], &[]).unwrap();
        let text = CertifyConfig::new(settings, &matches).unwrap_err().to_string();
        for part in [
            "--key: is required",
            "openssl genpkey -algorithm ed25519 -out key.pem",
            "VOTE_STORE: is required",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn verifying_a_certificate_needs_no_settings() {
        let env = [("VOTE_LISTEN", "nowhere")];
        let (matches, _) = parse(&["verify", "there", "--public-key", "key.pem"], &env).unwrap();
        let expected = VerifyConfig { dir: "there".into(), public_key: "key.pem".into() };
        assert_eq!(VerifyConfig::new(&matches), expected);
    }
}
