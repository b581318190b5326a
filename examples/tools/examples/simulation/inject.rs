//! Injects faults, and ends them when their time is over.

use std::time::Duration;

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
    let workers = || world.workers();
    let now = Instant::now();
    match fault {
        Fault::BlockQueueLink { worker, server } => workers()[worker].queue_links[server].block(true),
        Fault::LoseOnQueueLink { worker, server, per_mille } => {
            workers()[worker].queue_links[server].lose(per_mille);
        }
        Fault::SlowQueueLink { worker, server } => workers()[worker].queue_links[server].slow_down(SLOW),
        // A frontend that can't ask its queue can't notice what the queue lost.
        Fault::BlockFrontendLink { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].link.block(true);
        }
        Fault::LoseOnFrontendLink { frontend, per_mille } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].link.lose(per_mille);
        }
        Fault::SlowFrontendLink { frontend } => world.frontends()[frontend].link.slow_down(SLOW),
        Fault::BlockStoreLink { worker } => {
            truth.owners_change(now);
            workers()[worker].store_link.block(true);
        }
        Fault::LoseOnStoreLink { worker, per_mille } => {
            truth.owners_change(now);
            workers()[worker].store_link.lose(per_mille);
        }
        Fault::FreezeServer { server } => world.servers[server].freeze(true),
        Fault::RestartServer { server } => world.servers[server].stop(),
        Fault::RollBackServer { server, images } | Fault::PromoteReplica { server, images } => {
            let kept = world.servers[server].roll_back(images);
            truth.server_lost(server, kept, now);
        }
        Fault::ReplaceServer { server } => {
            world.servers[server].replace();
            truth.server_lost(server, world.start, now);
        }
        Fault::CopyServer { server } => {
            world.servers[SERVERS - 1].copy_from(&world.servers[server]);
            truth.server_was_copied(server, now);
        }
        Fault::StopDatabase => {
            truth.owners_change(now);
            world.database.stop();
        }
        Fault::LoseLocks => {
            truth.owners_change(now);
            world.database.store.lose_locks();
        }
        Fault::FailOver { images } => {
            truth.owners_change(now);
            let missing = world.database.fail_over(images);
            truth.database_lost(missing.after, now, world.kind.keeps_what_lags());
            truth.polls_lost(missing.definitions, missing.finals);
        }
        Fault::StopWorker { worker } => {
            worker_ends(worker, world, truth);
            world.stop_worker(worker);
        }
        Fault::UpdateWorker { worker } => {
            worker_ends(worker, world, truth);
            world.update(Service::Worker(worker));
            world.stop_worker(worker);
        }
        Fault::KillWorker { worker } => {
            worker_ends(worker, world, truth);
            workers()[worker].process.set(State::Dead);
        }
        Fault::FreezeWorker { worker } => {
            truth.owners_change(now);
            workers()[worker].process.set(State::Frozen);
        }
        Fault::StartWorkerWithOldFile { worker } => {
            worker_ends(worker, world, truth);
            world.restart_worker(worker, &world.files.yesterday);
        }
        Fault::StartWorkerWithOtherFile { worker } => {
            worker_ends(worker, world, truth);
            world.restart_worker(worker, &world.files.other);
        }
        Fault::KillFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].process.set(State::Dead);
        }
        Fault::FreezeFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].process.set(State::Frozen);
        }
        Fault::StartFrontendWithOtherFile { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.restart_frontend(frontend, &world.files.other);
        }
        Fault::UpdateFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.update(Service::Frontend(frontend));
            world.frontends()[frontend].process.set(State::Dead);
        }
        Fault::StepClock { of, seconds } => {
            with_clock(of, world, |process| process.set_clock(seconds * 1_000_000, 0))
        }
        Fault::DriftClock { of, per_mille } => {
            with_clock(of, world, |process| process.set_clock(process.clock_error(), per_mille * 1000));
        }
        Fault::ClosePoll => operator::close(world, truth, "pets"),
        Fault::WithdrawPoll => operator::withdraw(world),
        Fault::ReschedulePoll { later_by } => operator::reschedule(world, later_by),
        Fault::RetireQueues => operator::retire_lost(world, truth),
        Fault::DecideOnQuarantine { replay } => {
            let decision = if replay { Decision::Replay } else { operator::reject() };
            operator::decide(world, &decision);
        }
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
    let workers = || world.workers();
    let now = Instant::now();
    match fault {
        Fault::BlockQueueLink { worker, server } => workers()[worker].queue_links[server].block(false),
        Fault::LoseOnQueueLink { worker, server, .. } => workers()[worker].queue_links[server].lose(0),
        Fault::SlowQueueLink { worker, server } => {
            workers()[worker].queue_links[server].slow_down(Duration::ZERO);
        }
        Fault::BlockFrontendLink { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].link.block(false);
        }
        Fault::LoseOnFrontendLink { frontend, .. } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].link.lose(0);
        }
        Fault::SlowFrontendLink { frontend } => world.frontends()[frontend].link.slow_down(Duration::ZERO),
        Fault::BlockStoreLink { worker } => {
            truth.owners_change(now);
            workers()[worker].store_link.block(false);
        }
        Fault::LoseOnStoreLink { worker, .. } => {
            truth.owners_change(now);
            workers()[worker].store_link.lose(0);
        }
        Fault::FreezeServer { server } => world.servers[server].freeze(false),
        Fault::RestartServer { server } => world.servers[server].start(),
        Fault::StopDatabase => {
            truth.owners_change(now);
            world.database.start();
        }
        Fault::LoseLocks => {
            truth.owners_change(now);
            world.database.end_sessions();
        }
        Fault::StopWorker { worker }
        | Fault::KillWorker { worker }
        | Fault::UpdateWorker { worker }
        | Fault::StartWorkerWithOldFile { worker }
        | Fault::StartWorkerWithOtherFile { worker } => {
            worker_ends(worker, world, truth);
            world.restart_worker(worker, world.file_of(Service::Worker(worker)));
        }
        Fault::FreezeWorker { worker } => {
            truth.owners_change(now);
            workers()[worker].process.set(State::Running);
        }
        Fault::KillFrontend { frontend }
        | Fault::UpdateFrontend { frontend }
        | Fault::StartFrontendWithOtherFile { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.restart_frontend(frontend, world.file_of(Service::Frontend(frontend)));
        }
        Fault::FreezeFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].process.set(State::Running);
        }
        Fault::StepClock { of, .. } | Fault::DriftClock { of, .. } => {
            with_clock(of, world, |process| process.set_clock(0, 0));
        }
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

/// Changes a clock.
fn with_clock(of: ClockOf, world: &World, set: impl FnOnce(&Process)) {
    match of {
        ClockOf::Worker(n) => set(&world.workers()[n].process),
        ClockOf::Frontend(n) => set(&world.frontends()[n].process),
        ClockOf::Database => set(&world.database.process),
    }
}
