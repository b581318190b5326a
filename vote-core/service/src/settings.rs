//! Every setting of every service, in one table; and [`Settings`], what was given for them.
//!
//! A setting is an environment variable and a flag at once: `VOTE_LISTEN` is `--listen`, and the flag wins. Secrets
//! have no plain flag, since command lines are visible to other users of a machine: they come from the variable, or
//! from a file that `VOTE_PEPPER_FILE` or `--pepper-file` names.

mod names;
mod parse;
pub(crate) mod values;

pub use parse::{count, partitions, seconds};
pub use values::{ConfigError, EX_CONFIG, Settings};

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The environment variable, `VOTE_LISTEN`.
    pub name: &'static str,
    /// What stands for the value in the help, `ADDR`.
    pub value: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What holds when it is not given.
    pub default: Option<&'static str>,
    /// Never shown, and never taken from the command line.
    pub secret: bool,
    /// May also be given as a file, which `VOTE_…_FILE` names. All secrets may, and addresses that hold a password.
    pub file: bool,
}

/// What stands for the value of a setting that is true or false; its flag may stand alone.
pub(crate) const BOOL: &str = "BOOL";

impl Setting {
    /// The flag without its dashes: `listen`.
    #[must_use]
    pub fn flag(&self) -> String {
        flag(self.name)
    }

    /// The variable that names a file with the value, `VOTE_PEPPER_FILE`, if that is allowed.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        self.file.then(|| format!("{}_FILE", self.name))
    }

    pub(crate) fn is_bool(&self) -> bool {
        self.value == BOOL
    }
}

/// The flag, without its dashes, of the variable `name`.
pub(crate) fn flag(name: &str) -> String {
    name.trim_start_matches("VOTE_").to_ascii_lowercase().replace('_', "-")
}

macro_rules! settings {
    ($($name:ident $value:tt $help:literal $(= $default:literal)? $(, $kind:ident)?;)+) => {
        $(
            #[doc = concat!("`VOTE_", stringify!($name), "`: ", $help, ".")]
            pub const $name: Setting = Setting {
                name: concat!("VOTE_", stringify!($name)),
                value: $value,
                help: $help,
                default: settings!(@default $($default)?),
                secret: settings!(@secret $($kind)?),
                file: settings!(@file $($kind)?),
            };
        )+
        /// All of them, in the order of the help.
        pub const ALL: &[&Setting] = &[$(&$name),+];
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    (@secret secret) => { true };
    (@secret $($file:ident)?) => { false };
    (@file) => { false };
    (@file $any:ident) => { true };
}

settings! {
    LISTEN "ADDR" "address and port for the public" = "127.0.0.1:8080";
    ADMIN_LISTEN "ADDR" "address and port for /healthz, /readyz and /metrics; keep it private" = "127.0.0.1:9080";
    POLLS "FILE" "the polls, a TOML file; without it the example, cats or dogs";
    QUEUE "URL" "the queue of this frontend: redis://, redis+unix://, sqlite: or memory:", file;
    QUEUES "URLS" "the queues to read, separated by commas; dns+redis://HOST:PORT stands for all addresses of a name", file;
    QUEUE_PREFIX "NAME" "what the queue's keys in Redis begin with" = "vote";
    STORE "URL" "where results are kept: postgres://, sqlite: or memory:", file;
    STORE_WITNESS "URLS" "standbys of the store, postgres://, separated by commas: queues keep committed votes until each of these shows them", file;
    STORE_SCHEMA "NAME" "the schema in Postgres" = "vote";
    MIGRATE "BOOL" "create or update the store's tables at start" = "false";
    PEPPER "HEX" "turns voter ids into keys: 32 bytes or more, the same for all services and for the life of the polls", secret;
    COOKIE_KEYS "HEX,…" "sign the voters' cookies: the first signs, all verify, so that they can be changed", secret;
    RECEIPT_KEY "HEX" "encrypts receipts: the same for frontends and results", secret;
    PARTITIONS "N" "a power of two from 1 to 1024, the same for all services; fixed once a store was filled" = "16";
    LANES "N" "database connections of this worker, each with its share of the partitions" = "2";
    TRIM_DELAY "SECONDS" "keep committed votes in the queues for that long, in case the store falls back to a backup" = "0";
    CLOSE_GRACE "SECONDS" "close a poll that long after its closes_at, so that votes on their way are in" = "5";
    THREADS "N" "threads that serve requests; as many as there are processor cores if not given";
    MAX_CONNECTIONS "N" "the most connections of the process; more wait to be accepted" = "10000";
    TLS "BOOL" "whether TLS ends in front of this service: cookies are then sent over https only" = "false";
    RESULTS_URL "URL" "where voters find the results service, for links";
    FRONTEND_URL "URL" "where the public finds the frontend, for links";
    ALLOW_VOLATILE_QUEUE "BOOL" "accept votes though the queue may lose them in a crash: never in production" = "false";
    SHUTDOWN_SECONDS "SECONDS" "how long requests may take to finish after SIGTERM" = "10";
    LOG "FILTER" "what to log: error, warn, info, debug, trace, or by module as in info,vote_worker=debug" = "info";
    LOG_FORMAT "FORMAT" "text or json" = "text";
    OTLP_ENDPOINT "URL" "send traces to this collector, OTLP over HTTP as in http://collector:4318; needs a build with the feature otel";
    OTLP_RATIO "SHARE" "which share of traces is sent, 0 to 1" = "0.01";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_come_once_and_follow_from_one_another() {
        let names: Vec<String> = names::known_names().collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert_eq!(ADMIN_LISTEN.flag(), "admin-listen");
        assert_eq!(PEPPER.file_name().as_deref(), Some("VOTE_PEPPER_FILE"));
    }

    #[test]
    fn secrets_have_files_and_no_default() {
        for setting in ALL.iter().filter(|setting| setting.secret) {
            assert!(setting.file && setting.default.is_none(), "{}", setting.name);
        }
    }
}
