//! Building blocks of the three services, also usable by a service of your own: settings, telemetry, shutdown, an HTTP
//! server that survives a spike, the layers in front of an application, admin routes, and receipts.
//!
//! A service is a function that a test can call on port 0 with its own [`Shutdown`]:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, StatusCode};
//! use tower::service_fn;
//! use vote_service::{Connections, Guards, Limits, Shutdown, layers, respond, serve};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let app = service_fn(async |_: Request<hyper::body::Incoming>| {
//!     Ok::<_, Infallible>(respond::text(StatusCode::OK, "hello"))
//! });
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let shutdown = Shutdown::new();
//! # shutdown.trigger();
//! serve::serve(
//!     listener,
//!     layers::guard(app, &Guards::default()),
//!     Limits::default(),
//!     Connections::new(10_000),
//!     shutdown,
//! )
//! .await
//! # }
//! ```
//!
//! As a program, a service is a [`Program`], which [`program::main`] starts and ends.
//!
//! The modules in the order in which a service uses them: [`program`] → [`cli`] and [`settings`] → [`telemetry`] →
//! [`shutdown`] → [`listen`] and [`threads`] → [`serve`] → [`layers`] → [`body`], [`respond`] and [`receipt`].
//! [`metrics`], [`traces`], [`admin`] and [`readiness`] accompany all of them.

pub mod admin;
pub mod body;
pub mod cli;
pub mod layers;
pub mod listen;
pub mod metrics;
pub mod program;
pub mod readiness;
pub mod receipt;
pub mod respond;
pub mod serve;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod threads;
pub mod traces;

pub use body::{Body, BoxError};
pub use cli::{Cli, CliExit, Parsed};
pub use layers::Guards;
pub use program::Program;
pub use readiness::Readiness;
pub use receipt::{Receipt, ReceiptKey};
pub use respond::Problem;
pub use serve::{Connections, Limits};
pub use settings::{ConfigError, Setting, Settings};
pub use shutdown::Shutdown;
pub use telemetry::LogFormat;

/// Commit that the program was built from; `None` unless the environment variable of this name was set at compile time.
/// The name lacks the prefix `VOTE_` because it is not a setting.
pub const BUILD_COMMIT: Option<&str> = match option_env!("BUILD_COMMIT") {
    Some(commit) if !commit.is_empty() => Some(commit),
    _ => None,
};
