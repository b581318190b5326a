//! The service's configuration. No other module reads the command line or the environment.

use std::{env, ffi::OsString, net::SocketAddr, path::PathBuf};

use vote_core::{PollSlug, Polls, StoreAddress};
use vote_service::{
    Cli, CliExit, Limits, LogFormat, Parsed, ReceiptKey, Setting, Settings, cli,
    settings::{self, EX_CONFIG},
    telemetry,
    traces::Collector,
};

use crate::{Options, certificate::key, store as open};

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

/// The configuration of the service. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to serve the public routes on.
    pub listen: SocketAddr,
    /// Address to serve health and metrics on.
    pub admin_listen: SocketAddr,
    /// The polls to show.
    pub polls: Polls,
    /// Address of the store.
    pub store: StoreAddress,
    /// Schema that holds the tables of the store, on Postgres.
    pub store_schema: String,
    /// Key that opens receipts.
    pub receipt_key: ReceiptKey,
    /// Base URL of the voting site, for links, without a trailing `/`.
    pub frontend_url: Option<String>,
    /// Number of threads that serve requests; the number of cores if none.
    pub threads: Option<usize>,
    /// Limits on what clients may use, and the time that requests in progress have to finish at shutdown.
    pub options: Options,
    /// Filter of log messages.
    pub log: String,
    /// Format of log messages.
    pub log_format: LogFormat,
    /// Collector that traces are sent to, if any.
    pub traces: Option<Collector>,
}

/// The command to execute.
#[derive(Debug)]
pub enum Command {
    /// Serve results.
    Run(Box<Config>),
    /// Report that the configuration is valid.
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

/// The configuration of `certify`.
#[derive(Debug, Clone)]
pub struct CertifyConfig {
    /// Address of the store.
    pub store: StoreAddress,
    /// Schema that holds the tables of the store, on Postgres.
    pub store_schema: String,
    /// Source of the titles and labels to print.
    pub polls: Polls,
    /// The poll to certify.
    pub poll: PollSlug,
    /// The folder to create.
    pub out: PathBuf,
    /// The file with the private key that signs the certificate.
    pub key: PathBuf,
    /// Whether to write a certificate even if votes are outstanding or the audit is broken.
    pub force: bool,
}

/// The configuration of `verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyConfig {
    /// The folder with the certificate.
    pub dir: PathBuf,
    /// The file with the public key to check the signature with.
    pub public_key: PathBuf,
}

/// Parses the command line and the environment of the process.
///
/// # Errors
/// Fails as [`parse`] does.
pub fn from_process() -> Result<Command, CliExit> {
    parse(env::args_os(), cli::lossy_env(env::vars_os()))
}

/// Parses a command line, which starts with the program's name, and an environment. Blocks for a moment; must not be
/// called inside a runtime.
///
/// # Errors
/// Returns what to print and the exit code for `--help`, `--version` and invalid arguments. Invalid settings are all
/// reported at once (code 78).
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Command, CliExit> {
    let about = "Shows poll results, the status of receipts, and the state of the count.";
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
        // It runs every few seconds. Other invalid settings are reported by the service itself.
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
            "--key: is required (private key that signs the certificate); create one with: {}",
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
    // Both arguments are required, so clap has already reported a missing one.
    let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    VerifyConfig { dir: path("dir"), public_key: path("public-key") }
}

fn certify_command() -> clap::Command {
    clap::Command::new(CERTIFY)
        .about(
            "Write the signed result of a poll, with all its ballots and its audit, to a new folder. Exit codes: 0 \
             written, 1 the audit is broken, 2 votes are outstanding, 69 the store can't be read, 73 the folder can't \
             be written, 78 no usable key",
        )
        .arg(poll_argument().required(true).help("The poll to certify"))
        .arg(
            path_argument("out", "DIR")
                .long("out")
                .required(true)
                .help("The folder to create; it may exist if it is empty"),
        )
        .arg(path_argument("key", "FILE").long("key").help(format!(
            "The Ed25519 private key to sign with, as unencrypted PKCS#8 PEM; create one with `{}`",
            key::HOW_TO_MAKE
        )))
        .arg(clap::Arg::new("force").long("force").action(clap::ArgAction::SetTrue).help(
            "Write a certificate even if votes are outstanding or the audit is broken; it lists why and is PROVISIONAL",
        ))
}

fn verify_command() -> clap::Command {
    clap::Command::new(VERIFY)
        .about(
            "Recount the ballots of a certificate and check its sums and its signature, without a store. Exit codes: 0 \
             valid and final, 1 invalid, 2 valid but forced while votes were outstanding, 78 no usable key",
        )
        .arg(path_argument("dir", "DIR").required(true).help("The folder of the certificate"))
        .arg(path_argument("public-key", "FILE").long("public-key").required(true).help(format!(
            "The Ed25519 public key, from a source you trust and not from the folder; the holder of the private key \
             exports it with `{}`",
            key::HOW_TO_PUBLISH
        )))
}

fn path_argument(name: &'static str, value: &'static str) -> clap::Arg {
    clap::Arg::new(name).value_name(value).value_parser(clap::value_parser!(PathBuf))
}

fn audit_command() -> clap::Command {
    clap::Command::new(AUDIT)
        .about(
            "Check that every accepted vote is accounted for. Exit codes: 0 all are and nothing is outstanding, 1 \
             accounting errors or lost votes, 2 votes are outstanding or a queue was not heard of, 69 the store can't \
             be read",
        )
        .arg(poll_argument().help("Audit only this poll"))
        .arg(clap::Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("Print JSON"))
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
            options: Options {
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
            "memory: works only within one process, but this service reads what workers commit: use postgres:// \
                    or sqlite:, or run everything in one process like the example `embedded`"
                .to_owned(),
        );
    }
    text.parse().map_err(|e: vote_core::address::AddressError| e.to_string())
}

/// Parses the base URL of links, and removes trailing slashes.
fn url(text: &str) -> Result<String, String> {
    let parsed = text.parse::<http::Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    match parsed {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => {
            Err("expected http://HOST or https://HOST, optionally with a path, without a query".to_owned())
        }
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
        let required = [("VOTE_STORE", "sqlite:/nowhere/votes.db"), ("VOTE_RECEIPT_KEY", KEY)];
        match parse(&[], &[&required[..], env].concat()) {
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
    fn only_the_store_and_the_receipt_key_are_required() {
        let config = config(&[]);
        assert_eq!(config.listen, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(config.admin_listen, "127.0.0.1:9083".parse().unwrap());
        assert_eq!((config.polls, config.frontend_url), (Polls::example(), None));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let text = problems(&[
            ("VOTE_LISTEN", "here"),
            ("VOTE_STORE", "memory:"),
            ("VOTE_FRONTEND_URL", "vote.example"),
        ]);
        for name in [
            "VOTE_LISTEN: ",
            "VOTE_STORE: memory: works only",
            "VOTE_FRONTEND_URL: ",
            "VOTE_RECEIPT_KEY: is required",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }

    #[test]
    fn a_store_address_or_schema_that_can_never_work_is_reported() {
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
    fn a_trailing_slash_is_removed_from_a_url() {
        let url = |text| config(&[("VOTE_FRONTEND_URL", text)]).frontend_url.unwrap();
        assert_eq!(url("https://vote.example/"), "https://vote.example");
        assert_eq!(url("http://localhost:8080/x"), "http://localhost:8080/x");
    }

    #[test]
    fn only_http_urls_with_a_host_and_no_query_are_accepted() {
        for bad in ["javascript:alert(1)", "/polls", "ftp://host", "https://host/?x=y", "https://"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_healthcheck_needs_only_the_admin_address() {
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
    fn certifying_without_a_key_is_refused_with_the_command_that_creates_one() {
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
    fn verifying_a_certificate_needs_no_settings() {
        let command =
            parse(&["verify", "there", "--public-key", "key.pem"], &[("VOTE_LISTEN", "nowhere")]).unwrap();
        let expected = VerifyConfig { dir: "there".into(), public_key: "key.pem".into() };
        assert!(matches!(command, Command::Verify(config) if config == expected));
    }
}
