//! The service's configuration. No other module reads the environment.

use std::{env, net::SocketAddr};

use clap::Command;
use vote_core::{Polls, StoreAddress};
use vote_service::{Cli, CliExit, ConfigError, Limits, Parsed, ReceiptKey, Setting, Settings, cli, settings};

use crate::{Options, store as open};

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

/// The configuration of the service, without the settings of the [program](vote_service::program). `Debug` shows no
/// secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to serve the public routes on.
    pub listen: SocketAddr,
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
}

/// Parses the command line, which may name one of the commands, and the settings in it and in the environment.
///
/// # Errors
/// Returns what to print and the exit code for `--help`, `--version` and invalid arguments.
pub fn parse(commands: impl IntoIterator<Item = Command>) -> Result<Parsed, CliExit> {
    cli(commands).parse(env::args_os(), cli::lossy_env(env::vars_os()))
}

pub(crate) fn cli(commands: impl IntoIterator<Item = Command>) -> Cli {
    let about = "Show poll results, the status of receipts, and the state of the count";
    let cli = Cli::new("vote-results", about, SETTINGS)
        .default_value(&settings::LISTEN, "127.0.0.1:8081")
        .default_value(&settings::ADMIN_LISTEN, "127.0.0.1:9083");
    commands.into_iter().fold(cli, Cli::command)
}

pub(crate) fn store(settings: &mut Settings) -> Option<StoreAddress> {
    settings.required(&settings::STORE, store_address)
}

pub(crate) fn schema(settings: &mut Settings) -> Option<String> {
    settings.required(&settings::STORE_SCHEMA, |text: &str| Ok::<_, String>(text.to_owned()))
}

impl Config {
    /// Builds the configuration from the settings. Blocks for a moment; must not be called inside a runtime.
    ///
    /// # Errors
    /// Reports every invalid or missing setting by name.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let listen = settings.required(&settings::LISTEN, str::parse);
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
        let config = || {
            Some(Self {
                listen: listen?,
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
            })
        };
        settings.finish_with(config())
    }
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

    fn settings(env: &[(&str, &str)]) -> Settings {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        cli([]).parse(["vote-results".into()], env).unwrap().settings
    }

    fn config(env: &[(&str, &str)]) -> Config {
        let required = [("VOTE_STORE", "sqlite:/nowhere/votes.db"), ("VOTE_RECEIPT_KEY", KEY)];
        Config::from_settings(settings(&[&required[..], env].concat())).unwrap()
    }

    fn problems(env: &[(&str, &str)]) -> String {
        Config::from_settings(settings(env)).unwrap_err().to_string()
    }

    #[test]
    fn only_the_store_and_the_receipt_key_are_required() {
        let config = config(&[]);
        assert_eq!(config.listen, "127.0.0.1:8081".parse().unwrap());
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
}
