//! The values given for the settings. Reading them collects all problems instead of stopping at the first.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use vote_core::{Polls, Secret};

use super::{
    LOG_FORMAT, OTLP_ENDPOINT, OTLP_RATIO, POLLS, Setting,
    names::{is_known, nearest},
};
use crate::{LogFormat, traces::Collector};

/// Exit code for invalid settings (`EX_CONFIG` of sysexits.h).
pub const EX_CONFIG: u8 = 78;

/// Values given for the settings of a service, and the problems found with them so far.
///
/// ```
/// # use vote_service::{Cli, ConfigError, settings};
/// # let cli = Cli::new("demo", "Show how", &[&settings::LISTEN, &settings::PARTITIONS]);
/// # let mut settings = cli.parse(["demo".into()], []).unwrap().settings;
/// let listen = settings.required(&settings::LISTEN, str::parse::<std::net::SocketAddr>);
/// let partitions = settings.required(&settings::PARTITIONS, settings::partitions);
/// let (listen, partitions) = settings.finish_with(listen.zip(partitions))?;
/// # Ok::<(), ConfigError>(())
/// ```
pub struct Settings {
    declared: Vec<Declared>,
    /// Values by the name of the variable, whether they came from the variable or from the flag. None is empty.
    given: BTreeMap<String, String>,
    problems: Vec<String>,
}

/// A setting that the service uses, with its default in this service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared {
    pub(crate) setting: &'static Setting,
    pub(crate) default: Option<&'static str>,
}

/// All problems with the settings, one per line, each naming its variable. The program should exit with [`EX_CONFIG`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Creates the error of a service that finds only after its start that a setting does not fit. `problem` should
    /// name the setting, and must not contain a secret.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Debug for Settings {
    /// Writes names only, because values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("given", &self.given.keys())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

/// Error of a value that can't be read; the problem is already recorded.
struct Reported;

impl Settings {
    /// Collects the values given. `flags` win over `env`, and an empty value counts as not given.
    ///
    /// A `VOTE_…` variable that no service knows is a problem: its name is most likely mistyped, and the setting would
    /// silently have no effect.
    pub(crate) fn new(
        declared: Vec<Declared>,
        flags: impl IntoIterator<Item = (String, String)>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut settings = Self { declared, given: BTreeMap::new(), problems: Vec::new() };
        for (name, value) in env {
            if !name.starts_with("VOTE_") {
                continue;
            }
            if !is_known(&name) {
                let near = nearest(&name);
                settings
                    .problems
                    .push(format!("{name}: unknown setting; did you mean {near}? Otherwise remove it"));
            } else if !value.is_empty() {
                settings.given.insert(name, value);
            }
        }
        settings.given.extend(flags.into_iter().filter(|(_, value)| !value.is_empty()));
        settings
    }

    /// Returns the value given, or the default. Returns `None` if there is neither, or if `parse` rejects the value,
    /// which records a problem.
    pub fn get<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(setting).ok()??;
        self.parsed(setting, &text, parse)
    }

    /// Returns the value given, or the default. Records a problem if there is neither, or if `parse` rejects the value.
    pub fn required<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.required_text(setting)?;
        self.parsed(setting, &text, parse)
    }

    /// Returns the value of a setting that is true or false. Returns false if there is neither a value nor a default,
    /// or if the value is invalid, which records a problem.
    pub fn flag(&mut self, setting: &Setting) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err("expected true or false"),
        };
        self.get(setting, parse).unwrap_or(false)
    }

    /// Returns a secret. Records a problem if it is missing or invalid.
    pub fn secret(&mut self, setting: &Setting) -> Option<Secret> {
        self.required(setting, Secret::from_hex)
    }

    /// Returns a secret if it was given. Records a problem if it is invalid.
    pub fn optional_secret(&mut self, setting: &Setting) -> Option<Secret> {
        self.get(setting, Secret::from_hex)
    }

    /// Returns secrets separated by commas or, as in a file, by line ends. Records a problem if there are none or if
    /// one is invalid.
    pub fn secrets(&mut self, setting: &Setting) -> Option<Vec<Secret>> {
        self.required(setting, |text| {
            let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
            let secrets: Vec<Secret> = parts
                .enumerate()
                .map(|(i, part)| Secret::from_hex(part).map_err(|e| format!("secret {}: {e}", i + 1)))
                .collect::<Result<_, _>>()?;
            if secrets.is_empty() { Err("at least one is required".to_owned()) } else { Ok(secrets) }
        })
    }

    /// Returns the polls in the file that [`POLLS`] names, or the example if it is not given. Records a problem if the
    /// file is unreadable or invalid.
    pub fn polls(&mut self) -> Option<Polls> {
        let Some(file) = self.text(&POLLS).ok()? else {
            return Some(Polls::example());
        };
        let polls = fs::read_to_string(&file)
            .map_err(|e| format!("can't read {file}: {e}"))
            .and_then(|text| Polls::from_toml(&file, &text).map_err(|e| e.to_string()));
        polls.map_err(|e| self.problem(&POLLS, e)).ok()
    }

    /// True if a value was given, rather than left to the default.
    #[must_use]
    pub fn is_set(&self, setting: &Setting) -> bool {
        self.given.contains_key(setting.name)
            || setting.file_name().is_some_and(|name| self.given.contains_key(&name))
    }

    /// Returns the collector that traces are sent to; `None` if none was given.
    pub fn collector(&mut self) -> Option<Collector> {
        let ratio = self.required(&OTLP_RATIO, str::parse);
        let endpoint = self.get(&OTLP_ENDPOINT, str::parse);
        Some(Collector::new(endpoint?, ratio?))
    }

    /// Returns the format of the log, or the default if it was not given or is invalid. Records no problem, so that
    /// problems with the settings can themselves be reported in this format.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.given.get(LOG_FORMAT.name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Records what is wrong with a setting and what to do about it. `text` must not contain a secret.
    pub fn problem(&mut self, setting: &Setting, text: impl fmt::Display) {
        self.report(setting.name, &text.to_string());
    }

    /// Records what is wrong with an argument of a command, like a [problem](Self::problem) with a setting.
    pub fn problem_with_argument(&mut self, flag: &str, text: impl fmt::Display) {
        self.report(flag, &text.to_string());
    }

    /// Ends reading; succeeds if no problem was recorded.
    ///
    /// # Errors
    /// Fails with all problems recorded.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// Ends reading and returns what the service built from its settings. `built` may be `None` only if a problem was
    /// recorded.
    ///
    /// # Errors
    /// Fails with all problems recorded.
    pub fn finish_with<T>(self, built: Option<T>) -> Result<T, ConfigError> {
        self.finish()?;
        built.ok_or_else(|| ConfigError::new("a required setting is missing"))
    }

    fn report(&mut self, name: &str, text: &str) {
        self.problems.extend(text.lines().map(|line| format!("{name}: {line}")));
    }

    fn parsed<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(e) if setting.file => {
                self.problem(setting, e);
                None
            }
            Err(e) => {
                self.problem(setting, format!("{text:?} is not a valid {}: {e}", setting.value));
                None
            }
        }
    }

    fn required_text(&mut self, setting: &Setting) -> Option<String> {
        let text = self.text(setting).ok()?;
        if text.is_none() {
            let how = match (setting.file_name(), setting.secret) {
                (Some(file), true) => {
                    format!("set {} or {file}; `openssl rand -hex 32` generates a value", setting.name)
                }
                (Some(file), false) => format!("set it or {file}, or pass --{}", setting.flag()),
                (None, _) => format!("set it, or pass --{}", setting.flag()),
            };
            self.problem(setting, format!("is required ({}): {how}", setting.help));
        }
        text
    }

    /// Returns the value given, or the content of the file given, or the default.
    fn text(&mut self, setting: &Setting) -> Result<Option<String>, Reported> {
        let Some(declared) = self.declared.iter().find(|d| d.setting.name == setting.name).copied() else {
            self.problem(setting, "this service reads the setting but does not declare it, which is a bug");
            return Err(Reported);
        };
        let file_name = setting.file_name();
        let file = file_name.as_ref().and_then(|name| self.given.get(name).cloned());
        match (self.given.get(setting.name).cloned(), file_name.zip(file)) {
            (Some(_), Some((file_name, _))) => {
                self.problem(setting, format!("{file_name} is set as well: set only one of the two"));
                Err(Reported)
            }
            (Some(text), None) => Ok(Some(text)),
            (None, Some((file_name, file))) => match read_value(Path::new(&file)) {
                Ok(text) => Ok(Some(text)),
                Err(e) => {
                    self.report(&file_name, &format!("can't read {file}: {e}"));
                    Err(Reported)
                }
            },
            (None, None) => Ok(declared.default.map(str::to_owned)),
        }
    }
}

/// Returns the content of a file without the line end that editors add.
fn read_value(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|e| e.to_string())?;
    let text = text.trim();
    if text.is_empty() { Err("the file is empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests;
