//! Injects faults, and ends them when their time is over.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use vote_core::count::Decision;

use crate::{
    history::{ClockOf, Fault, Planned},
    operator,
    process::{Process, State},
    truth::Truth,
    world::{FRONTENDS, SERVERS, Service, World},
};

/// Time that a slow link adds to the latency of a message.
const SLOW: Duration = Duration::from_millis(900);

/// The active faults, each with the time when it ends.
#[derive(Debug, Default)]
pub(crate) struct ActiveFaults(Vec<(Instant, Fault)>);

impl ActiveFaults {
    /// Begins a fault.
    pub(crate) fn begin(&mut self, planned: &Planned, world: &World, truth: &mut Truth) {
        tracing::debug!(fault = ?planned.fault, "fault begins");
        begin(planned.fault, world, truth);
        self.0.push((Instant::now() + planned.lasts, planned.fault));
    }

    /// Ends the faults whose time is over, or all of them if `all` is set.
    pub(crate) fn end_due(&mut self, all: bool, world: &World, truth: &mut Truth) {
        let now = Instant::now();
        let (due, rest) =
            std::mem::take(&mut self.0).into_iter().partition(|(until, _)| all || *until <= now);
        self.0 = rest;
        for (_, fault) in due {
            tracing::debug!(?fault, "fault ends");
            end(fault, world, truth);
        }
    }
}

/// Begins a fault, and records what it may cause.
fn begin(fault: Fault, world: &World, truth: &mut Truth) {
    note_disturbance(fault, world, truth);
    let workers = || world.workers();
    let frontends = || world.frontends();
    match fault {
        Fault::BlockQueueLink { worker, server } => workers()[worker].queue_links[server].block(true),
        Fault::LoseOnQueueLink { worker, server, per_mille } => {
            workers()[worker].queue_links[server].lose(per_mille);
        }
        Fault::SlowQueueLink { worker, server } => workers()[worker].queue_links[server].slow_down(SLOW),
        Fault::BlockFrontendLink { frontend } => frontends()[frontend].link.block(true),
        Fault::LoseOnFrontendLink { frontend, per_mille } => frontends()[frontend].link.lose(per_mille),
        Fault::SlowFrontendLink { frontend } => frontends()[frontend].link.slow_down(SLOW),
        Fault::BlockStoreLink { worker } => workers()[worker].store_link.block(true),
        Fault::LoseOnStoreLink { worker, per_mille } => workers()[worker].store_link.lose(per_mille),
        Fault::FreezeServer { server } => world.servers[server].freeze(true),
        Fault::RestartServer { server } => world.servers[server].stop(),
        Fault::RollBackServer { server, images } | Fault::PromoteReplica { server, images } => {
            let kept = world.servers[server].roll_back(images);
            truth.server_lost(server, kept, Instant::now());
        }
        Fault::ReplaceServer { server } => {
            world.servers[server].replace();
            truth.server_lost(server, world.start, Instant::now());
        }
        Fault::CopyServer { server } => {
            world.servers[SERVERS - 1].copy_from(&world.servers[server]);
            truth.server_was_copied(server, Instant::now());
        }
        Fault::StopDatabase => world.database.stop(),
        Fault::LoseLocks => world.database.store.lose_locks(),
        Fault::FailOver { images } => fail_over(images, world, truth),
        Fault::StopWorker { worker } => world.stop_worker(worker),
        Fault::UpdateWorker { worker } => {
            world.update(Service::Worker(worker));
            world.stop_worker(worker);
        }
        Fault::KillWorker { worker } => workers()[worker].process.set(State::Dead),
        Fault::FreezeWorker { worker } => workers()[worker].process.set(State::Frozen),
        Fault::StartWorkerWithOldFile { worker } => world.restart_worker(worker, &world.files.yesterday),
        Fault::StartWorkerWithOtherFile { worker } => world.restart_worker(worker, &world.files.other),
        Fault::KillFrontend { frontend } => frontends()[frontend].process.set(State::Dead),
        Fault::FreezeFrontend { frontend } => frontends()[frontend].process.set(State::Frozen),
        Fault::StartFrontendWithOtherFile { frontend } => {
            world.restart_frontend(frontend, &world.files.other)
        }
        Fault::UpdateFrontend { frontend } => {
            world.update(Service::Frontend(frontend));
            frontends()[frontend].process.set(State::Dead);
        }
        Fault::StepClock { of, seconds } => process(of, world).set_clock(seconds * 1_000_000, 0),
        Fault::DriftClock { of, per_mille } => drift(&process(of, world), per_mille),
        Fault::ClosePoll => operator::close(world, truth, "pets"),
        Fault::WithdrawPoll => operator::withdraw(world),
        Fault::ReschedulePoll { later_by } => operator::reschedule(world, later_by),
        Fault::RetireQueues => operator::retire_lost(world, truth),
        Fault::DecideOnQuarantine { replay: true } => operator::decide(world, &Decision::Replay),
        Fault::DecideOnQuarantine { replay: false } => operator::decide(world, &operator::reject()),
    }
}

/// Fails over the database, and records what it lost by that.
fn fail_over(images: usize, world: &World, truth: &mut Truth) {
    truth.owners_change(Instant::now());
    let missing = world.database.fail_over(images);
    truth.database_lost(missing.after, Instant::now(), world.kind.keeps_what_lags());
    truth.polls_lost(missing.definitions, missing.finals);
}

/// Makes a clock gain or lose from now on.
fn drift(process: &Process, per_mille: i64) {
    process.set_clock(process.clock_error(), per_mille * 1000);
}

/// Records what a fault disturbs both when it begins and when it ends.
fn note_disturbance(fault: Fault, world: &World, truth: &mut Truth) {
    match fault {
        // A frontend that can't ask its queue can't notice what the queue lost.
        Fault::BlockFrontendLink { frontend }
        | Fault::LoseOnFrontendLink { frontend, .. }
        | Fault::KillFrontend { frontend }
        | Fault::FreezeFrontend { frontend }
        | Fault::StartFrontendWithOtherFile { frontend }
        | Fault::UpdateFrontend { frontend } => truth.frontend_disturbed(frontend, Instant::now()),
        Fault::BlockStoreLink { .. }
        | Fault::LoseOnStoreLink { .. }
        | Fault::StopDatabase
        | Fault::LoseLocks
        | Fault::FreezeWorker { .. } => truth.owners_change(Instant::now()),
        Fault::StopWorker { worker }
        | Fault::KillWorker { worker }
        | Fault::UpdateWorker { worker }
        | Fault::StartWorkerWithOldFile { worker }
        | Fault::StartWorkerWithOtherFile { worker } => worker_ends(worker, world, truth),
        _ => {}
    }
}

/// Records that the partitions of a worker change owners, since it is about to end or to start.
fn worker_ends(worker: usize, world: &World, truth: &mut Truth) {
    let worker = &world.workers()[worker];
    let is_noticed_at_once =
        worker.store_link.is_clear() && worker.process.is_running() && world.database.is_up();
    if is_noticed_at_once {
        truth.owners_change_at_once(Instant::now());
    } else {
        // The database notices it only when the session has been idle for too long.
        truth.owners_change(Instant::now());
    }
}

/// Starts every service again that does not have the newest file.
pub(crate) fn finish_updates(world: &World, truth: &mut Truth) {
    if world.kind.updates {
        truth.owners_change(Instant::now());
        (0..FRONTENDS).for_each(|frontend| truth.frontend_disturbed(frontend, Instant::now()));
        world.finish_updates();
    }
}

/// Ends a fault. Nothing is done for faults whose effect only the pipeline can repair, such as a loss of data.
fn end(fault: Fault, world: &World, truth: &mut Truth) {
    note_disturbance(fault, world, truth);
    let workers = || world.workers();
    let frontends = || world.frontends();
    match fault {
        Fault::BlockQueueLink { worker, server } => workers()[worker].queue_links[server].block(false),
        Fault::LoseOnQueueLink { worker, server, .. } => workers()[worker].queue_links[server].lose(0),
        Fault::SlowQueueLink { worker, server } => {
            workers()[worker].queue_links[server].slow_down(Duration::ZERO);
        }
        Fault::BlockFrontendLink { frontend } => frontends()[frontend].link.block(false),
        Fault::LoseOnFrontendLink { frontend, .. } => frontends()[frontend].link.lose(0),
        Fault::SlowFrontendLink { frontend } => frontends()[frontend].link.slow_down(Duration::ZERO),
        Fault::BlockStoreLink { worker } => workers()[worker].store_link.block(false),
        Fault::LoseOnStoreLink { worker, .. } => workers()[worker].store_link.lose(0),
        Fault::FreezeServer { server } => world.servers[server].freeze(false),
        Fault::RestartServer { server } => world.servers[server].start(),
        Fault::StopDatabase => world.database.start(),
        Fault::LoseLocks => world.database.end_sessions(),
        Fault::StopWorker { worker }
        | Fault::KillWorker { worker }
        | Fault::UpdateWorker { worker }
        | Fault::StartWorkerWithOldFile { worker }
        | Fault::StartWorkerWithOtherFile { worker } => {
            world.restart_worker(worker, world.file_of(Service::Worker(worker)));
        }
        Fault::FreezeWorker { worker } => workers()[worker].process.set(State::Running),
        Fault::KillFrontend { frontend }
        | Fault::UpdateFrontend { frontend }
        | Fault::StartFrontendWithOtherFile { frontend } => {
            world.restart_frontend(frontend, world.file_of(Service::Frontend(frontend)));
        }
        Fault::FreezeFrontend { frontend } => frontends()[frontend].process.set(State::Running),
        Fault::StepClock { of, .. } | Fault::DriftClock { of, .. } => process(of, world).set_clock(0, 0),
        Fault::RollBackServer { .. }
        | Fault::PromoteReplica { .. }
        | Fault::ReplaceServer { .. }
        | Fault::CopyServer { .. }
        | Fault::FailOver { .. }
        | Fault::ClosePoll
        | Fault::WithdrawPoll
        | Fault::ReschedulePoll { .. }
        | Fault::RetireQueues
        | Fault::DecideOnQuarantine { .. } => {}
    }
}

/// Returns the process whose clock is meant.
fn process(of: ClockOf, world: &World) -> Arc<Process> {
    match of {
        ClockOf::Worker(n) => Arc::clone(&world.workers()[n].process),
        ClockOf::Frontend(n) => Arc::clone(&world.frontends()[n].process),
        ClockOf::Database => Arc::clone(&world.database.process),
    }
}
