//! A service as a program: which command needs which settings, exit codes, and what the admin routes answer until the
//! end.

use std::process::ExitCode;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vote_service::{
    BoxError, Cli, CliExit, ConfigError, Parsed, Program, Settings, Shutdown, program,
    settings::{self, Setting},
};

const SETTINGS: &[&Setting] = &[
    &settings::ADMIN_LISTEN,
    &settings::PARTITIONS,
    &settings::LOG,
    &settings::LOG_FORMAT,
    &settings::OTLP_ENDPOINT,
    &settings::OTLP_RATIO,
];

fn parse(args: &[&str]) -> Result<Parsed, CliExit> {
    Cli::new("demo", "Show how", SETTINGS).parse(["demo"].iter().chain(args).map(Into::into), [])
}

fn ready() -> Result<(), String> {
    Ok(())
}

/// Defines a program whose command line and whose service are given.
macro_rules! program {
    ($name:ident, $args:expr, $serve:expr) => {
        struct $name;

        impl Program for $name {
            const NAME: &'static str = "demo";
            type Config = ();
            type Health = fn() -> Result<(), String>;

            fn parse() -> Result<Parsed, CliExit> {
                parse(&$args)
            }

            fn config(mut settings: Settings) -> Result<(), ConfigError> {
                let partitions = settings.required(&settings::PARTITIONS, settings::partitions);
                settings.finish_with(partitions.map(drop))
            }

            fn health((): &()) -> Self::Health {
                ready
            }

            async fn serve((): (), _: Self::Health, shutdown: Shutdown) -> Result<(), BoxError> {
                $serve(shutdown).await
            }
        }
    };
}

#[track_caller]
fn assert_exit<P: Program>(code: u8) {
    assert_eq!(format!("{:?}", program::main::<P>()), format!("{:?}", ExitCode::from(code)));
}

async fn never(_: Shutdown) -> Result<(), BoxError> {
    panic!("the service was started")
}

/// Settings of which one is invalid, beside the address of admin routes that nothing serves.
const INVALID: [&str; 4] = ["--admin-listen", "127.0.0.1:1", "--partitions", "3"];

#[test]
fn invalid_settings_exit_with_78_before_the_service_starts() {
    program!(Own, INVALID, never);
    assert_exit::<Own>(78);
    program!(Common, ["--log-format", "loud"], never);
    assert_exit::<Common>(78);
    program!(Checked, [&["check-config"], &INVALID[..]].concat(), never);
    assert_exit::<Checked>(78);
}

#[test]
fn the_check_of_valid_settings_starts_nothing() {
    program!(Valid, ["check-config"], never);
    assert_exit::<Valid>(0);
}

#[test]
fn a_health_check_needs_only_the_admin_address() {
    program!(Unhealthy, [&["healthcheck"], &INVALID[..]].concat(), never);
    assert_exit::<Unhealthy>(1);
    program!(Nowhere, ["healthcheck", "--admin-listen", "nowhere"], never);
    assert_exit::<Nowhere>(78);
}

async fn fail(_: Shutdown) -> Result<(), BoxError> {
    Err("no disk".into())
}

async fn refuse(_: Shutdown) -> Result<(), BoxError> {
    Err(ConfigError::new("another pepper").into())
}

#[test]
fn a_service_that_fails_exits_with_1_or_with_78_if_a_setting_is_the_reason() {
    program!(Fails, ["--admin-listen", "127.0.0.1:0"], fail);
    assert_exit::<Fails>(1);
    program!(Refuses, ["--admin-listen", "127.0.0.1:0"], refuse);
    assert_exit::<Refuses>(78);
}

/// Address of the admin routes in the next test: one that no other test of this process uses.
const ADMIN: &str = "127.0.0.71:29071";

async fn readyz() -> String {
    let mut stream = TcpStream::connect(ADMIN).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn end(shutdown: Shutdown) -> Result<(), BoxError> {
    assert!(readyz().await.ends_with("\r\n\r\nready\n"));
    shutdown.trigger();
    assert!(readyz().await.ends_with("not ready: shutting down\n"));
    Ok(())
}

#[test]
fn the_admin_routes_answer_until_the_service_has_ended() {
    program!(Ends, ["--admin-listen", ADMIN], end);
    assert_exit::<Ends>(0);
    assert!(std::net::TcpStream::connect(ADMIN).is_err());
}
