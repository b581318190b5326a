//! One table of all settings of all services, and [`Settings`], the values given for them.
//!
//! Each setting is both an environment variable and a flag, such as `VOTE_LISTEN` and `--listen`; the flag wins. A
//! secret has no plain flag, because other users of the machine can read command lines: it comes from the variable or
//! from a file, which `VOTE_PEPPER_FILE` or `--pepper-file` names.

mod names;
mod parse;
pub(crate) mod values;

pub use parse::{count, partitions, seconds};
pub use values::{ConfigError, EX_CONFIG, Settings};

/// Definition of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Name of the environment variable, such as `VOTE_LISTEN`.
    pub name: &'static str,
    /// Placeholder for the value in the help, such as `ADDR`.
    pub value: &'static str,
    /// What the value is: a noun phrase for the help and for docs/settings.md.
    pub help: &'static str,
    /// Value used when the setting is not given.
    pub default: Option<&'static str>,
    /// True for a secret: its value is never printed, and never taken from the command line.
    pub secret: bool,
    /// True if the value may also come from a file, which `VOTE_…_FILE` names. Applies to all secrets, and to addresses
    /// that may contain a password.
    pub file: bool,
}

/// Placeholder for the value of a setting that is true or false. The flag of such a setting needs no value.
pub(crate) const BOOL: &str = "BOOL";

impl Setting {
    /// Returns the flag without its dashes, such as `listen`.
    #[must_use]
    pub fn flag(&self) -> String {
        flag(self.name)
    }

    /// Returns the variable that names a file with the value, such as `VOTE_PEPPER_FILE`; `None` if the value can't
    /// come from a file.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        self.file.then(|| format!("{}_FILE", self.name))
    }

    pub(crate) fn is_bool(&self) -> bool {
        self.value == BOOL
    }
}

/// Returns the flag, without its dashes, of the variable `name`.
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
        /// All settings, in the order of the help.
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
    LISTEN "ADDR" "address and port of the public HTTP server" = "127.0.0.1:8080";
    ADMIN_LISTEN "ADDR" "address and port of /healthz, /readyz and /metrics; keep it private" = "127.0.0.1:9080";
    POLLS "FILE" "TOML file with the polls; without it, the example poll, cats or dogs";
    QUEUE "URL" "queue of this frontend: redis://, redis+unix://, sqlite: or memory:", file;
    QUEUES "URLS" "queues to read, separated by commas; dns+redis://HOST:PORT stands for all addresses of a host name", file;
    QUEUE_PREFIX "NAME" "prefix of the queue's keys in Redis" = "vote";
    STORE "URL" "store of votes and results: postgres://, sqlite: or memory:", file;
    STORE_WITNESS "URLS" "standbys of the store, postgres://, separated by commas: queues keep committed votes until every standby has them", file;
    STORE_SCHEMA "NAME" "schema in Postgres" = "vote";
    MIGRATE "BOOL" "whether to create or update the store's tables at startup" = "false";
    PEPPER "HEX" "secret that turns voter ids into voter keys: 32 bytes or more, the same for all frontends and workers and for the life of the polls", secret;
    COOKIE_KEYS "HEX,…" "keys that sign the voters' cookies: the first signs, all verify, so that keys can be rotated", secret;
    RECEIPT_KEY "HEX" "key that encrypts receipts: the same for all frontends and results services", secret;
    PARTITIONS "N" "number of partitions, a power of two from 1 to 1024: the same for all frontends and workers, fixed once the store is set up" = "16";
    LANES "N" "number of lanes of this worker, each with one database connection and its share of the partitions" = "2";
    TRIM_DELAY "SECONDS" "how long queues keep committed votes, in case the store falls back to a backup" = "0";
    CLOSE_GRACE "SECONDS" "time from a poll's closes_at until workers close it, so that votes in flight are counted" = "5";
    THREADS "N" "threads that serve requests; one per processor core if not given";
    MAX_CONNECTIONS "N" "maximum number of connections of the process; further ones wait to be accepted" = "10000";
    TLS "BOOL" "whether TLS is terminated in front of this service: cookies are then sent over https only" = "false";
    RESULTS_URL "URL" "public URL of the results service, for links";
    FRONTEND_URL "URL" "public URL of the frontend, for links";
    ALLOW_VOLATILE_QUEUE "BOOL" "whether a frontend accepts votes although the queue may lose them in a crash, and a worker commits although the store may lose commits; never use it in production" = "false";
    SHUTDOWN_SECONDS "SECONDS" "how long requests may take to finish after SIGTERM" = "10";
    LOG "FILTER" "what to log: error, warn, info, debug or trace, or levels by module, such as info,vote_worker=debug" = "info";
    LOG_FORMAT "FORMAT" "format of the log: text or json" = "text";
    OTLP_ENDPOINT "URL" "collector that traces are sent to by OTLP over HTTP, such as http://collector:4318; needs a build with the feature otel";
    OTLP_RATIO "SHARE" "share of traces to send, 0 to 1" = "0.01";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_derived_from_one_another() {
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
