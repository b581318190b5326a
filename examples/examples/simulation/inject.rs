//! Carries out faults, and takes them back when their time is over.

use std::time::Duration;

use tokio::time::Instant;
use vote_core::{PollSlug, Polls, Store};

use crate::{
    history::{ClockOf, Fault, Planned},
    process::{Process, State},
    server::at_once,
    truth::Truth,
    world::{SERVERS, World},
};

/// How much a slow link adds.
const SLOW: Duration = Duration::from_millis(900);

/// Faults that stand, each with the end of it.
#[derive(Debug, Default)]
pub(crate) struct Standing(Vec<(Instant, Fault)>);

impl Standing {
    /// Begins a fault.
    pub(crate) fn begin(&mut self, planned: &Planned, world: &World, truth: &mut Truth, old_file: &Polls) {
        begin(planned.fault, world, truth, old_file);
        self.0.push((Instant::now() + planned.lasts, planned.fault));
    }

    /// Ends the faults whose time is over; with `all`, every one.
    pub(crate) fn end_due(&mut self, all: bool, world: &World, truth: &mut Truth) {
        let now = Instant::now();
        let (due, rest) =
            std::mem::take(&mut self.0).into_iter().partition(|(until, _)| all || *until <= now);
        self.0 = rest;
        for (_, fault) in due {
            end(fault, world, truth);
        }
    }
}

fn begin(fault: Fault, world: &World, truth: &mut Truth, old_file: &Polls) {
    let workers = || world.workers();
    let now = Instant::now();
    match fault {
        Fault::BlockQueueLink { worker, server } => workers()[worker].queue_links[server].block(true),
        Fault::LoseOnQueueLink { worker, server, per_mille } => {
            workers()[worker].queue_links[server].lose(per_mille);
        }
        Fault::SlowQueueLink { worker, server } => workers()[worker].queue_links[server].slow_down(SLOW),
        Fault::BlockFrontendLink { frontend } => world.frontends()[frontend].link.block(true),
        Fault::LoseOnFrontendLink { frontend, per_mille } => world.frontends()[frontend].link.lose(per_mille),
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
            truth.server_was_copied(server);
            if !world.database.is_up() {
                truth.server_was_copied_unseen(server, now);
            }
            truth.server_was_copied(SERVERS - 1);
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
            let kept = world.database.fail_over(images);
            truth.database_lost(kept, now, world.kind.keeps_what_lags());
        }
        Fault::StopWorker { worker } => {
            truth.owners_change(now);
            world.stop_worker(worker);
        }
        Fault::KillWorker { worker } => {
            truth.owners_change(now);
            workers()[worker].process.set(State::Dead);
        }
        Fault::FreezeWorker { worker } => {
            truth.owners_change(now);
            workers()[worker].process.set(State::Frozen);
        }
        Fault::StartWorkerWithOldFile { worker } => {
            truth.owners_change(now);
            world.restart_worker(worker, old_file.clone());
        }
        Fault::KillFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].process.set(State::Dead);
        }
        Fault::FreezeFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.frontends()[frontend].process.set(State::Frozen);
        }
        Fault::StepClock { of, seconds } => {
            with_clock(of, world, |process| process.set_clock(seconds * 1_000_000, 0))
        }
        Fault::DriftClock { of, per_mille } => {
            with_clock(of, world, |process| process.set_clock(process.clock_error(), per_mille * 1000));
        }
        Fault::ClosePoll => close(world, truth, "pets"),
    }
}

/// Ends a fault; those that leave a state behind which only the pipeline can mend end at once.
fn end(fault: Fault, world: &World, truth: &mut Truth) {
    let workers = || world.workers();
    let now = Instant::now();
    match fault {
        Fault::BlockQueueLink { worker, server } => workers()[worker].queue_links[server].block(false),
        Fault::LoseOnQueueLink { worker, server, .. } => workers()[worker].queue_links[server].lose(0),
        Fault::SlowQueueLink { worker, server } => {
            workers()[worker].queue_links[server].slow_down(Duration::ZERO);
        }
        Fault::BlockFrontendLink { frontend } => world.frontends()[frontend].link.block(false),
        Fault::LoseOnFrontendLink { frontend, .. } => world.frontends()[frontend].link.lose(0),
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
        | Fault::StartWorkerWithOldFile { worker } => {
            truth.owners_change(now);
            world.restart_worker(worker, world.polls.clone());
        }
        Fault::FreezeWorker { worker } => {
            truth.owners_change(now);
            workers()[worker].process.set(State::Running);
        }
        Fault::KillFrontend { frontend } => {
            truth.frontend_disturbed(frontend, now);
            world.restart_frontend(frontend);
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
        | Fault::ClosePoll => {}
    }
}

fn with_clock(of: ClockOf, world: &World, set: impl FnOnce(&Process)) {
    match of {
        ClockOf::Worker(n) => set(&world.workers()[n].process),
        ClockOf::Frontend(n) => set(&world.frontends()[n].process),
        ClockOf::Database => set(&world.database.process),
    }
}

/// What an operator does by `polls close`.
pub(crate) fn close(world: &World, truth: &mut Truth, poll: &str) {
    let Ok(poll) = poll.parse::<PollSlug>() else { return };
    if world.database.is_up() && matches!(at_once(world.database.store.close_poll(poll)), Ok(Some(_))) {
        truth.closed_by_hand(poll);
    }
}
