//! The settings of the service. The only place that reads its command line and environment.

use std::{env, ffi::OsString, net::SocketAddr, path::PathBuf};

use vote_core::{PollSlug, Polls, StoreAddress};
use vote_service::{
    Cli, CliExit, Limits, LogFormat, Parsed, ReceiptKey, Setting, Settings, cli,
    settings::{self, EX_CONFIG},
    telemetry,
    traces::Collector,
};

use crate::{Serving, certificate::key, store as open};

const SETTINGS: &[&Setting] = &[
    &settings::STORE,
    &settings::POLLS,
    &settings::RECEIPT_KEY,
    &settings::LISTEN,
    &settings::ADMIN_LISTEN,
    &settings::FRONTEND_URL,
    &settings::STORE_SCHEMA,
    &settings::THREADS,
    &settings::MAX_CONNECTIONS,
    &settings::SHUTDOWN_SECONDS,
    &settings::LOG,
    &settings::LOG_FORMAT,
    &settings::OTLP_ENDPOINT,
    &settings::OTLP_RATIO,
];

/// Everything the service is told. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the public is served.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub admin_listen: SocketAddr,
    /// The polls to show.
    pub polls: Polls,
    /// Where the store is.
    pub store: StoreAddress,
    /// Where its tables are, in a Postgres.
    pub store_schema: String,
    /// Opens receipts.
    pub receipt_key: ReceiptKey,
    /// Where the public votes, for links; without a `/` at its end.
    pub frontend_url: Option<String>,
    /// How many threads serve; as many as there are cores if not given.
    pub threads: Option<usize>,
    /// What clients may take, and how long requests may take to finish at the end.
    pub serving: Serving,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where traces are sent, if anywhere.
    pub traces: Option<Collector>,
}

/// What the program is to do.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Box<Config>),
    /// Say that the settings can be used.
    CheckConfig,
    /// Ask the service at this address whether it is healthy.
    Healthcheck(SocketAddr),
    /// Audit the store.
    Audit(AuditConfig),
    /// Certify the result of a poll.
    Certify(Box<CertifyConfig>),
    /// Check a certificate.
    Verify(VerifyConfig),
}

/// What an audit is told.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// Where the store is.
    pub store: StoreAddress,
    /// Where its tables are, in a Postgres.
    pub store_schema: String,
    /// The poll, if only one.
    pub poll: Option<PollSlug>,
    /// As JSON.
    pub json: bool,
}

/// What is to be certified.
#[derive(Debug, Clone)]
pub struct CertifyConfig {
    /// Where the store is.
    pub store: StoreAddress,
    /// Where its tables are, in a Postgres.
    pub store_schema: String,
    /// Titles and labels.
    pub polls: Polls,
    /// The poll.
    pub poll: PollSlug,
    /// The folder to write.
    pub out: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
    /// Also if votes are outstanding.
    pub force: bool,
}

/// What is to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyConfig {
    /// The folder with the certificate.
    pub dir: PathBuf,
    /// The file with the public key.
    pub public_key: PathBuf,
}

/// What the program was told on its command line and in its environment.
///
/// # Errors
/// As [`parse`].
pub fn from_process() -> Result<Command, CliExit> {
    parse(env::args_os(), cli::lossy_env(env::vars_os()))
}

/// What a command line, the program's name first, and an environment say. Blocks for a moment; not to be called within
/// a runtime.
///
/// # Errors
/// When help or the version was asked for, when the command line can't be understood, and with every problem of the
/// settings (code 78).
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Command, CliExit> {
    let about = "Shows the results of polls, what became of a receipt, and the state of the count.";
    let parsed = Cli::new("vote-results", about, SETTINGS)
        .default_value(&settings::LISTEN, "127.0.0.1:8081")
        .default_value(&settings::ADMIN_LISTEN, "127.0.0.1:9083")
        .command(audit_command())
        .command(certify_command())
        .command(verify_command())
        .parse(args, env)?;
    let format = parsed.settings.log_format();
    command(parsed).map_err(|exit| CliExit { format, ..exit })
}

fn command(parsed: Parsed) -> Result<Command, CliExit> {
    let mut settings = parsed.settings;
    match parsed.command.as_ref().map(|(name, matches)| (name.as_str(), matches)) {
        Some((AUDIT, matches)) => return audit(settings, matches),
        Some((CERTIFY, matches)) => return certify(settings, matches),
        Some((VERIFY, matches)) => return Ok(Command::Verify(verify(matches))),
        _ => {}
    }
    let command = parsed.command.map(|(name, _)| name);
    if command.as_deref() == Some(cli::HEALTHCHECK) {
        // It runs every few seconds, and what else is wrong the service itself says.
        let admin_listen = settings.required(&settings::ADMIN_LISTEN, str::parse);
        return settings.finish_with(admin_listen).map(Command::Healthcheck).map_err(refused);
    }
    let config = read(settings)?;
    Ok(match command.as_deref() {
        Some(cli::CHECK_CONFIG) => Command::CheckConfig,
        _ => Command::Run(Box::new(config)),
    })
}

const AUDIT: &str = "audit";
const CERTIFY: &str = "certify";
const VERIFY: &str = "verify";

fn audit(mut settings: Settings, matches: &clap::ArgMatches) -> Result<Command, CliExit> {
    let poll = matches.get_one::<PollSlug>("poll").copied();
    let json = matches.get_flag("json");
    let (store, store_schema) = (store(&mut settings), schema(&mut settings));
    let config =
        || Some(Command::Audit(AuditConfig { store: store?, store_schema: store_schema?, poll, json }));
    settings.finish_with(config()).map_err(refused)
}

fn certify(mut settings: Settings, matches: &clap::ArgMatches) -> Result<Command, CliExit> {
    let poll = matches.get_one::<PollSlug>("poll").copied();
    let out = matches.get_one::<PathBuf>("out").cloned();
    let key = matches.get_one::<PathBuf>("key").cloned();
    let force = matches.get_flag("force");
    let (store, store_schema) = (store(&mut settings), schema(&mut settings));
    let polls = settings.polls();
    let Some(key) = key else {
        let text = format!(
            "--key: is required, since a certificate that is not signed proves nothing; make one with: {}",
            key::HOW_TO_MAKE
        );
        let others = settings.finish().map_or_else(|e| format!("\n{e}"), |()| String::new());
        return Err(refused(text + &others));
    };
    let config = || {
        Some(Command::Certify(Box::new(CertifyConfig {
            store: store?,
            store_schema: store_schema?,
            polls: polls?,
            poll: poll?,
            out: out?,
            key,
            force,
        })))
    };
    settings.finish_with(config()).map_err(refused)
}

fn verify(matches: &clap::ArgMatches) -> VerifyConfig {
    // Both are required, so clap has seen to it that they are there.
    let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    VerifyConfig { dir: path("dir"), public_key: path("public-key") }
}

fn certify_command() -> clap::Command {
    clap::Command::new(CERTIFY)
        .about(
            "Write the signed result of a poll, with all its ballots and its audit, into a new folder: exit 0 if so, 2 \
             if votes are outstanding, 1 if the audit is broken, 69 if the store can't be read, 73 if the folder can't \
             be written, 78 without a usable key",
        )
        .arg(poll_argument().required(true).help("The poll"))
        .arg(path_argument("out", "DIR").long("out").required(true).help("The folder, which must not be there yet"))
        .arg(path_argument("key", "FILE").long("key").help(format!(
            "The Ed25519 private key to sign with, PKCS#8 as PEM; `{}` makes one",
            key::HOW_TO_MAKE
        )))
        .arg(clap::Arg::new("force").long("force").action(clap::ArgAction::SetTrue).help(
            "Write one though votes are outstanding or the audit is broken; it says so, and that it is PROVISIONAL",
        ))
}

fn verify_command() -> clap::Command {
    clap::Command::new(VERIFY)
        .about(
            "Count the ballots of a certificate again and check its sums and signature, without a store: exit 0 if all \
             holds and the result is final, 2 if all holds but votes were outstanding, 1 if anything is wrong, 78 \
             without a usable key",
        )
        .arg(path_argument("dir", "DIR").required(true).help("The folder of the certificate"))
        .arg(path_argument("public-key", "FILE").long("public-key").required(true).help(format!(
            "The Ed25519 public key, from somebody you trust and not from the folder; `{}` makes it from the private \
             one",
            key::HOW_TO_PUBLISH
        )))
}

fn path_argument(name: &'static str, value: &'static str) -> clap::Arg {
    clap::Arg::new(name).value_name(value).value_parser(clap::value_parser!(PathBuf))
}

fn audit_command() -> clap::Command {
    clap::Command::new(AUDIT)
        .about(
            "Check that every accepted vote is accounted for: exit 0 if so and none waits, 1 if not, 2 if votes wait or \
             a queue was not heard of, 69 if the store can't be read",
        )
        .arg(poll_argument().help("Only this poll"))
        .arg(clap::Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("Print it as JSON"))
}

fn poll_argument() -> clap::Arg {
    let slug = |text: &str| text.parse::<PollSlug>().map_err(|e| e.to_string());
    clap::Arg::new("poll").long("poll").value_name("SLUG").value_parser(slug)
}

fn store(settings: &mut Settings) -> Option<StoreAddress> {
    settings.required(&settings::STORE, store_address)
}

fn schema(settings: &mut Settings) -> Option<String> {
    settings.required(&settings::STORE_SCHEMA, |text: &str| Ok::<_, String>(text.to_owned()))
}

fn read(mut settings: Settings) -> Result<Config, CliExit> {
    let listen = settings.required(&settings::LISTEN, str::parse);
    let admin_listen = settings.required(&settings::ADMIN_LISTEN, str::parse);
    let polls = settings.polls();
    let store = store(&mut settings);
    let store_schema = schema(&mut settings);
    if let (Some(store), Some(schema)) = (&store, &store_schema)
        && let Err(e) = open::check(store, schema)
    {
        settings.problem(&settings::STORE, e);
    }
    let receipt_key = settings.secret(&settings::RECEIPT_KEY);
    let frontend_url = settings.get(&settings::FRONTEND_URL, url);
    let threads = settings.get(&settings::THREADS, settings::count);
    let max_connections = settings.required(&settings::MAX_CONNECTIONS, settings::count);
    let drain = settings.required(&settings::SHUTDOWN_SECONDS, settings::seconds);
    let log = settings.required(&settings::LOG, telemetry::valid_filter);
    let log_format = settings.required(&settings::LOG_FORMAT, str::parse);
    let traces = settings.collector();
    let config = || {
        Some(Config {
            listen: listen?,
            admin_listen: admin_listen?,
            polls: polls?,
            store: store?,
            store_schema: store_schema?,
            receipt_key: receipt_key?.into(),
            frontend_url,
            threads,
            serving: Serving {
                limits: Limits { drain: drain?, ..Limits::default() },
                max_connections: max_connections?,
            },
            log: log?,
            log_format: log_format?,
            traces,
        })
    };
    settings.finish_with(config()).map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> CliExit {
    CliExit { code: EX_CONFIG, text: format!("{error}\n"), format: LogFormat::default() }
}

fn store_address(text: &str) -> Result<StoreAddress, String> {
    if text == "memory:" {
        return Err(
            "memory: is within one process, and this service reads what workers wrote: give postgres:// or \
                    sqlite:, or run all in one process as the example `embedded` does"
                .to_owned(),
        );
    }
    text.parse().map_err(|e: vote_core::address::AddressError| e.to_string())
}

/// An address that links can begin with.
fn url(text: &str) -> Result<String, String> {
    let parsed = text.parse::<http::Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    match parsed {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err("expected http://HOST or https://HOST, with a path if need be".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "abababababababababababababababababababababababababababababababab";

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Command, CliExit> {
        let args = ["vote-results"].iter().chain(args).map(OsString::from);
        super::parse(args, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn config(env: &[(&str, &str)]) -> Config {
        let least = [("VOTE_STORE", "sqlite:/nowhere/votes.db"), ("VOTE_RECEIPT_KEY", KEY)];
        match parse(&[], &[&least[..], env].concat()) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn problems(env: &[(&str, &str)]) -> String {
        let exit = parse(&["check-config"], env).map(|_| ()).unwrap_err();
        assert_eq!(exit.code, EX_CONFIG);
        exit.text
    }

    #[test]
    fn a_store_and_a_receipt_key_are_enough() {
        let config = config(&[]);
        assert_eq!(config.listen, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(config.admin_listen, "127.0.0.1:9083".parse().unwrap());
        assert_eq!((config.polls, config.frontend_url), (Polls::example(), None));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = problems(&[
            ("VOTE_LISTEN", "here"),
            ("VOTE_STORE", "memory:"),
            ("VOTE_FRONTEND_URL", "vote.example"),
        ]);
        for name in [
            "VOTE_LISTEN: ",
            "VOTE_STORE: memory: is within",
            "VOTE_FRONTEND_URL: ",
            "VOTE_RECEIPT_KEY: is required",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }

    #[test]
    fn an_address_of_a_server_that_can_never_work_is_a_problem() {
        let env = [("VOTE_RECEIPT_KEY", KEY), ("VOTE_STORE", "postgres://vote:s3cret@host:port/votes")];
        let text = problems(&env);
        assert!(text.starts_with("VOTE_STORE: ") && !text.contains("s3cret"), "{text}");
        let schema = [
            ("VOTE_RECEIPT_KEY", KEY),
            ("VOTE_STORE", "postgres://host/votes"),
            ("VOTE_STORE_SCHEMA", "no-such name"),
        ];
        assert!(problems(&schema).contains("no-such name"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", config(&[("VOTE_STORE", "postgres://vote:s3cret@host/votes")]));
        assert!(!shown.contains("s3cret") && !shown.contains("abab"), "{shown}");
    }

    #[test]
    fn a_url_loses_the_slash_at_its_end() {
        let url = |text| config(&[("VOTE_FRONTEND_URL", text)]).frontend_url.unwrap();
        assert_eq!(url("https://vote.example/"), "https://vote.example");
        assert_eq!(url("http://localhost:8080/x"), "http://localhost:8080/x");
    }

    #[test]
    fn a_url_of_another_kind_is_refused() {
        for bad in ["javascript:alert(1)", "/polls", "ftp://host", "https://host/?x=y", "https://"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_healthcheck_needs_no_more_than_the_address() {
        let command = parse(&["healthcheck", "--admin-listen", "0.0.0.0:1"], &[]).unwrap();
        assert!(matches!(command, Command::Healthcheck(addr) if addr == "0.0.0.0:1".parse().unwrap()));
    }

    #[test]
    fn a_certificate_needs_a_poll_a_folder_and_a_key() {
        let env = [("VOTE_STORE", "sqlite:votes.db")];
        let args = ["certify", "--poll", "pets", "--out", "there", "--key", "key.pem"];
        let Ok(Command::Certify(config)) = parse(&args, &env) else { panic!("no command") };
        assert_eq!((config.poll.as_str(), config.out, config.force), ("pets", "there".into(), false));
        assert_eq!(parse(&["certify", "--poll", "pets", "--key", "key.pem"], &env).unwrap_err().code, 64);
    }

    #[test]
    fn without_a_key_nothing_is_certified_and_the_way_to_make_one_is_told() {
        let exit = parse(&["certify", "--poll", "pets", "--out", "there"], &[]).unwrap_err();
        assert_eq!(exit.code, EX_CONFIG);
        for part in [
            "--key: is required",
            "openssl genpkey -algorithm ed25519 -out key.pem",
            "VOTE_STORE: is required",
        ] {
            assert!(exit.text.contains(part), "{part} in {}", exit.text);
        }
    }

    #[test]
    fn a_certificate_is_checked_without_settings() {
        let command =
            parse(&["verify", "there", "--public-key", "key.pem"], &[("VOTE_LISTEN", "nowhere")]).unwrap();
        let expected = VerifyConfig { dir: "there".into(), public_key: "key.pem".into() };
        assert!(matches!(command, Command::Verify(config) if config == expected));
    }
}
