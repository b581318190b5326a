//! The command line of a service, generated from its settings.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::ValueParser, parser::ValueSource};

use crate::settings::{self, Setting, Settings, values::Declared};

/// Exit code for an invalid command line (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;
/// Name of the command that only checks the settings.
pub const CHECK_CONFIG: &str = "check-config";
/// Name of the command that asks a running process whether it is healthy, for images without a shell.
pub const HEALTHCHECK: &str = "healthcheck";

/// Definition of the command line of a service.
///
/// ```
/// use vote_service::{Cli, cli, settings};
///
/// let cli = Cli::new("vote-demo", "Show how", &[&settings::LISTEN, &settings::PEPPER])
///     .command(clap::Command::new("seal").about("Seals something"));
/// let parsed = cli
///     .parse(["vote-demo", "check-config", "--listen", "[::]:80"].map(Into::into), [])
///     .map_err(|exit| exit.text)?;
/// assert_eq!(parsed.command.map(|(name, _)| name).as_deref(), Some(cli::CHECK_CONFIG));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
pub struct Cli {
    command: Command,
    declared: Vec<Declared>,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Parsed {
    /// The command with its arguments; `None` to run the service.
    pub command: Option<(String, ArgMatches)>,
    /// Values given for the settings, on the command line or in the environment.
    pub settings: Settings,
}

/// Why the program exits before it starts: help or the version was requested, or the command line is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliExit {
    /// Exit code: 0, or [`EX_USAGE`].
    pub code: u8,
    /// The help or version requested, or what is wrong.
    pub text: String,
}

impl CliExit {
    /// Prints the text, to stdout if it was requested and otherwise to stderr. Returns the exit code.
    #[must_use]
    pub fn exit(self) -> ExitCode {
        // A write fails if the reader has closed the pipe: it does not want the rest.
        let _ = match self.code {
            0 => io::stdout().write_all(self.text.as_bytes()),
            _ => io::stderr().write_all(self.text.as_bytes()),
        };
        ExitCode::from(self.code)
    }
}

impl Cli {
    /// Defines the command line of the service `name`, with a flag for each of its settings. `about` and the help of
    /// commands are in the imperative, as is usual on command lines; that of a value is a noun phrase.
    #[must_use]
    pub fn new(name: &'static str, about: &'static str, settings: &[&'static Setting]) -> Self {
        let command = Command::new(name)
            .about(about)
            .version(env!("CARGO_PKG_VERSION"))
            .after_help("Each setting is a flag or an environment variable; the flag wins.")
            .subcommand(
                Command::new(CHECK_CONFIG)
                    .about("Check the settings and exit: 0 if they are valid, 78 if not"),
            )
            .subcommand(Command::new(HEALTHCHECK).about(
                "Ask the service running on this machine whether it is healthy: exit 0 if so, else 1",
            ));
        let declared =
            settings.iter().map(|setting| Declared { setting, default: setting.default }).collect();
        Self { command, declared }
    }

    /// Overrides the default of a setting for this service.
    #[must_use]
    pub fn default_value(mut self, setting: &'static Setting, value: &'static str) -> Self {
        for declared in self.declared.iter_mut().filter(|d| d.setting.name == setting.name) {
            declared.default = Some(value);
        }
        self
    }

    /// Adds a command. It takes the settings as flags too, so its own arguments must not reuse their names.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.command = self.command.subcommand(command);
        self
    }

    /// Parses a command line, whose first item is the program's name, and an environment.
    ///
    /// Problems with the settings are not reported here but by [`Settings::finish`], together with those that the
    /// service finds.
    ///
    /// # Errors
    /// Fails if help or the version was requested, or if the command line is invalid. Call [`CliExit::exit`] then.
    pub fn parse(
        self,
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Parsed, CliExit> {
        let arguments: Vec<Arg> = self.declared.iter().flat_map(arguments).collect();
        let names: Vec<String> = arguments.iter().map(|arg| arg.get_id().to_string()).collect();
        let matches = self.command.args(arguments).try_get_matches_from(args).map_err(|e| CliExit {
            code: if e.use_stderr() { EX_USAGE } else { 0 },
            text: e.render().to_string(),
        })?;
        let flags: Vec<(String, String)> = names
            .into_iter()
            .filter(|name| matches.value_source(name) == Some(ValueSource::CommandLine))
            .filter_map(|name| matches.get_one::<String>(&name).cloned().map(|value| (name, value)))
            .collect();
        let settings = Settings::new(self.declared, flags, env);
        Ok(Parsed { command: matches.subcommand().map(|(name, m)| (name.to_owned(), m.clone())), settings })
    }
}

/// Returns the flags of a setting, each with the name of its variable as its id.
fn arguments(declared: &Declared) -> Vec<Arg> {
    let setting = declared.setting;
    let argument = |name: String| {
        Arg::new(name.clone())
            .long(settings::flag(&name))
            .global(true)
            .help_heading("Settings")
            .action(ArgAction::Set)
            .value_parser(ValueParser::string())
    };
    let notes = |name: &str| match declared.default {
        Some(default) => format!("[env: {name}] [default: {default}]"),
        None => format!("[env: {name}]"),
    };
    let mut arguments = Vec::new();
    if !setting.secret {
        let name = setting.name;
        let arg = argument(name.to_owned()).value_name(setting.value).help(format!(
            "{} {}",
            capital(setting.help),
            notes(name)
        ));
        // `--tls` alone, or `--tls=false`: with a space, a command that follows could be taken for the value.
        arguments.push(if setting.is_bool() {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            arg
        });
    }
    if let Some(name) = setting.file_name() {
        let help = if setting.secret {
            format!("{} [env: {}, or {name} for a file]", capital(setting.help), setting.name)
        } else {
            format!("File with the value of --{} [env: {name}]", setting.flag())
        };
        arguments.push(argument(name).value_name("FILE").help(help));
    }
    arguments
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Converts the environment to text, with a replacement character for anything that is not UTF-8. So a setting with
/// such a value is rejected by its own parser, and an unrelated variable does no harm.
pub fn lossy_env(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (String, String)> {
    let text = |os: OsString| os.to_string_lossy().into_owned();
    vars.into_iter().map(move |(name, value)| (text(name), text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ADMIN_LISTEN, COOKIE_KEYS, LISTEN, PEPPER, STORE, TLS};

    fn cli() -> Cli {
        Cli::new("vote-test", "Test", &[&LISTEN, &ADMIN_LISTEN, &PEPPER, &COOKIE_KEYS, &STORE, &TLS])
            .default_value(&ADMIN_LISTEN, "127.0.0.1:9999")
            .command(Command::new("audit").arg(Arg::new("poll").long("poll")))
    }

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Parsed, CliExit> {
        let args = ["vote-test"].iter().chain(args).map(OsString::from);
        cli().parse(args, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn value(parsed: Parsed, setting: &Setting) -> Option<String> {
        let mut settings = parsed.settings;
        settings.get(setting, text)
    }

    #[test]
    fn clap_accepts_the_whole_table() {
        let all = Cli::new("vote-test", "Test", settings::ALL);
        all.command.args(all.declared.iter().flat_map(arguments)).debug_assert();
    }

    #[test]
    fn a_flag_wins_over_the_environment_which_wins_over_the_default() {
        let env = [("VOTE_LISTEN", "env")];
        assert_eq!(value(parse(&["--listen", "flag"], &env).unwrap(), &LISTEN).as_deref(), Some("flag"));
        assert_eq!(value(parse(&[], &env).unwrap(), &LISTEN).as_deref(), Some("env"));
        assert_eq!(value(parse(&[], &[]).unwrap(), &LISTEN).as_deref(), LISTEN.default);
        assert_eq!(value(parse(&[], &[]).unwrap(), &ADMIN_LISTEN).as_deref(), Some("127.0.0.1:9999"));
    }

    #[test]
    fn flags_may_come_before_or_after_a_command() {
        for args in [["--listen", "x", "audit", "--poll", "p"], ["audit", "--poll", "p", "--listen", "x"]] {
            let parsed = parse(&args, &[]).unwrap();
            let (name, matches) = parsed.command.as_ref().unwrap();
            assert_eq!((name.as_str(), matches.get_one::<String>("poll").unwrap().as_str()), ("audit", "p"));
            assert_eq!(value(parsed, &LISTEN).as_deref(), Some("x"));
        }
    }

    #[test]
    fn a_flag_that_is_true_or_false_needs_no_value() {
        for (args, expected) in [
            (&["--tls"][..], true),
            (&["--tls=false"], false),
            (&["--tls", "check-config"], true),
            (&[], false),
        ] {
            assert_eq!(parse(args, &[]).unwrap().settings.flag(&TLS), expected, "{args:?}");
        }
        assert!(!parse(&["--tls=no"], &[("VOTE_TLS", "true")]).unwrap().settings.flag(&TLS));
    }

    #[test]
    fn a_secret_has_no_flag_except_the_one_for_a_file() {
        assert_eq!(parse(&["--pepper", "abcd"], &[]).unwrap_err().code, EX_USAGE);
        let mut settings = parse(&["--pepper-file", "/nowhere"], &[]).unwrap().settings;
        assert!(settings.secret(&PEPPER).is_none());
        assert!(
            settings.finish().unwrap_err().to_string().starts_with("VOTE_PEPPER_FILE: can't read /nowhere")
        );
    }

    #[test]
    fn help_shows_each_setting_with_its_variable_and_default() {
        let help = parse(&["--help"], &[]).unwrap_err();
        assert_eq!(help.code, 0);
        for part in [
            "--listen <ADDR>",
            "[env: VOTE_LISTEN] [default: 127.0.0.1:8080]",
            "127.0.0.1:9999",
            "--pepper-file <FILE>",
            "VOTE_PEPPER_FILE",
            "--store-file",
            "check-config",
            "healthcheck",
            "audit",
        ] {
            assert!(help.text.contains(part), "{part} in {}", help.text);
        }
    }

    #[test]
    fn the_version_is_shown() {
        let version = parse(&["--version"], &[]).unwrap_err();
        assert_eq!((version.code, version.text), (0, format!("vote-test {}\n", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn an_invalid_command_line_is_a_usage_error() {
        for args in [&["--lisen", "x"][..], &["dance"], &["--listen"]] {
            assert_eq!(parse(args, &[]).unwrap_err().code, EX_USAGE, "{args:?}");
        }
    }
}
