//! Unit costs, measured by small loops that use the product's own types.
#![allow(clippy::future_not_send, reason = "the loops run on the main thread, one after the other")]

mod balancer;
mod frontend;
mod queue;
mod store;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use vote_worker::commands::capacity::{Costs, Unit};

use crate::cpu::{self, Cpu};

/// CPU time of one loop in seconds, of client and server together: much more than the 10 ms in which the system counts
/// it.
const LOOP: f64 = 1.5;
/// Time limit of one loop, for a machine that is busy with other work.
const LONGEST: Duration = Duration::from_secs(20);
/// Time between two looks at the CPU time, which take some themselves.
const LOOK: Duration = Duration::from_millis(400);

/// Means of a loop over its turns.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// CPU time of this process in microseconds.
    client: f64,
    /// CPU time of the server in microseconds.
    server: f64,
    seconds: f64,
}

/// Repeats a call for a while, four at a time: a worker has several calls to the same server under way, and a call that
/// has to wake client and server takes more of both.
async fn repeat<F: Future<Output = ()>>(server: impl Fn() -> f64, mut call: impl FnMut() -> F) -> Sample {
    let four = || {
        let (first, second, third, fourth) = (call(), call(), call(), call());
        async move {
            tokio::join!(first, second, third, fourth);
        }
    };
    let Sample { client, server, seconds } = repeat_alone(server, four).await;
    Sample { client: client / 4.0, server: server / 4.0, seconds }
}

/// Repeats a call for a while, one at a time.
async fn repeat_alone<F: Future<Output = ()>>(
    server: impl Fn() -> f64,
    mut call: impl FnMut() -> F,
) -> Sample {
    let (start, client_before, server_before) = (Instant::now(), cpu::threads(cpu::VOTERS), server());
    let used = || cpu::threads(cpu::VOTERS) - client_before + server() - server_before;
    let mut turns = 0.0;
    while used() < LOOP && start.elapsed() < LONGEST {
        let looked = Instant::now();
        while looked.elapsed() < LOOK {
            call().await;
            turns += 1.0;
        }
    }
    Sample {
        client: (cpu::threads(cpu::VOTERS) - client_before) * 1e6 / turns,
        server: (server() - server_before) * 1e6 / turns,
        seconds: start.elapsed().as_secs_f64() / turns,
    }
}

/// Fits the costs of units to samples, each with its numbers of units.
fn units<const N: usize>(samples: &[([f64; N], Sample)]) -> [Unit; N] {
    let x: Vec<[f64; N]> = samples.iter().map(|(x, _)| *x).collect();
    let client = crate::fit::fit(&x, &samples.iter().map(|(_, sample)| sample.client).collect::<Vec<_>>());
    let server = crate::fit::fit(&x, &samples.iter().map(|(_, sample)| sample.server).collect::<Vec<_>>());
    std::array::from_fn(|i| Unit { client: client[i], server: server[i] })
}

pub(crate) use frontend::Frontend;

/// Measures all costs.
pub(crate) async fn measure() -> Costs {
    let mut costs = Costs::MEASURED;
    queue::measure(&mut costs).await;
    store::measure(&mut costs).await;
    frontend::measure(&mut costs).await;
    balancer::measure(&mut costs).await;
    costs
}

pub(crate) async fn run() -> Value {
    let costs = measure().await;
    json!(costs)
}

/// CPU time of a process with its children, for loops on one server.
fn redis(server: &vote_testkit::Redis) -> impl Fn() -> f64 {
    let pid = server.pid();
    move || Cpu::now(&[pid], 0).redis
}
