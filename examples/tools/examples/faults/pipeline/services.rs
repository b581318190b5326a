//! Starting of the services, each with its settings and its clock.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use vote_testkit::{Service, free_port};

use super::{Clocks, POLLS};
use crate::{
    args::{Args, Sabotage},
    clocks::Clock,
    electorate::SECRET,
    postgres::Postgres,
    process::Process,
    proxy::Proxy,
    variant::{TRIM_DELAY, Variant},
};

/// What the services are started with.
pub(super) struct Setup<'a> {
    pub(super) args: &'a Args,
    pub(super) variant: Variant,
    pub(super) clocks: &'a Clocks,
    /// File of polls.
    pub(super) polls: String,
    pub(super) logs: &'a Path,
}

impl Setup<'_> {
    /// Starts a worker. Returns it with the address of its admin routes.
    pub(super) fn worker(&self, n: usize, store: &Proxy, queues: &[Proxy]) -> (Process, SocketAddr) {
        let own = address();
        let queues: Vec<_> = queues.iter().map(|queue| format!("redis://{}", queue.address)).collect();
        let keeps = self.variant.rolls_back && self.args.sabotage != Some(Sabotage::TrimAtOnce);
        let pairs = [
            ("VOTE_STORE", &*Postgres::url(store.address)),
            ("VOTE_QUEUES", &queues.join(",")),
            (POLLS, &self.polls),
            ("VOTE_PEPPER", SECRET),
            ("VOTE_LANES", "2"),
            ("VOTE_MIGRATE", "true"),
            ("VOTE_TRIM_DELAY", if keeps { TRIM_DELAY } else { "0" }),
            ("VOTE_ADMIN_LISTEN", &own.to_string()),
        ];
        let mut environment = environment(&pairs, Some(&self.clocks.workers[n]));
        let faulty = self.args.sabotage.and_then(|sabotage| sabotage.of_workers());
        environment.extend(faulty.map(|mode| ("FAULTY_WORKER".to_owned(), mode.to_owned())));
        let program = match faulty {
            Some(_) => Service::example("faulty-worker"),
            None => Service::binary("vote-worker"),
        };
        (Process::start(&format!("worker-{n}"), program, environment, self.logs), own)
    }

    /// Starts a frontend. Returns it with its public address and that of its admin routes.
    pub(super) fn frontend(&self, n: usize, queue: &Proxy) -> (Process, SocketAddr, SocketAddr) {
        let (listen, own) = (address(), address());
        let pairs = [
            ("VOTE_QUEUE", &*format!("redis://{}", queue.address)),
            (POLLS, &self.polls),
            ("VOTE_PEPPER", SECRET),
            ("VOTE_COOKIE_KEYS", SECRET),
            ("VOTE_RECEIPT_KEY", SECRET),
            ("VOTE_THREADS", "1"),
            ("VOTE_ALLOW_VOLATILE_QUEUE", &self.args.everysec.to_string()),
            ("VOTE_LISTEN", &listen.to_string()),
            ("VOTE_ADMIN_LISTEN", &own.to_string()),
        ];
        let environment = environment(&pairs, Some(&self.clocks.frontends[n]));
        let program = Service::binary("vote-frontend");
        (Process::start(&format!("frontend-{n}"), program, environment, self.logs), listen, own)
    }

    /// Returns the environment in which the results service reads the store.
    ///
    /// It is without the clock of that service: the audit must have the right time.
    pub(super) fn reading(&self, store: SocketAddr) -> Vec<(String, String)> {
        let pairs =
            [("VOTE_STORE", &*Postgres::url(store)), (POLLS, &self.polls), ("VOTE_RECEIPT_KEY", SECRET)];
        environment(&pairs, None)
    }

    /// Starts the results service. Returns it with the address of its admin routes.
    pub(super) fn results(&self, program: &Path, reading: &[(String, String)]) -> (Process, SocketAddr) {
        let (listen, own) = (address().to_string(), address());
        let serving = [("VOTE_LISTEN", &*listen), ("VOTE_ADMIN_LISTEN", &own.to_string())];
        let serving = environment(&serving, Some(&self.clocks.results));
        let all = reading.iter().cloned().chain(serving).collect();
        (Process::start("results", program.to_owned(), all, self.logs), own)
    }
}

fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

fn environment(pairs: &[(&str, &str)], clock: Option<&Clock>) -> Vec<(String, String)> {
    let clock = clock.map(|clock| clock.skewed().environment()).into_iter().flatten();
    pairs.iter().copied().chain(clock).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
