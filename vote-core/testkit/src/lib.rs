//! Disposable servers for tests: a Redis, a Postgres, an HAProxy, or one of our own binaries. Each is a real process in a
//! directory of its own; both disappear when the handle is dropped, and also when the test process is killed.
//!
//! ```no_run
//! use vote_testkit::{Postgres, Redis, Service, free_port, http_get};
//!
//! let redis = Redis::start();
//! let postgres = Postgres::shared();
//! let store = postgres.database();
//! let listen = format!("127.0.0.1:{}", free_port());
//! let service = Service::start(
//!     &Service::binary("vote-results"),
//!     &[],
//!     &[("VOTE_STORE", &store), ("VOTE_LISTEN", &listen)],
//! );
//! service.wait_for_port(&listen);
//! assert_eq!(http_get(&listen, "/polls/pets").status, 200);
//! redis.kill9();
//! redis.restart();
//! ```
//!
//! All calls block, so that they read the same in sync and async tests; no call takes long, except to start a
//! server. Every failure is a panic that names the remedy or shows the end of the server's log: a test whose server
//! is missing must fail, never pass silently.
//!
//! Unix only: the watchdog is a shell script, and signals stop the servers.
#![allow(clippy::missing_panics_doc, reason = "every item here reports failure to its test by a panic")]

mod clock;
mod cpu;
mod dir;
mod haproxy;
mod http;
mod port;
mod postgres;
mod process;
mod program;
mod proxy;
mod redis;
mod service;
mod wait;

pub use clock::SkewedClock;
pub use cpu::thread_cpu;
pub use haproxy::Haproxy;
pub use http::{Response, http, http_get};
pub use port::free_port;
pub use postgres::Postgres;
pub use process::{Child, Exit};
pub use proxy::TcpProxy;
pub use redis::Redis;
pub use service::Service;
