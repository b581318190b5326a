//! Injects faults and heals them.

use std::time::{Duration, Instant};

use crate::{
    clocks::Clock,
    electorate::File,
    fault::{Fault, Group, Kind},
    pipeline::Pipeline,
    postgres::Slots,
    proxy::Mode,
    redis::Redis,
};

/// How long workers are cut off from a Redis before its file is truncated, where it does not sync each write: votes
/// that they have read and committed would not be lost with the queue.
const BACKLOG_FOR: Duration = Duration::from_millis(1200);
/// Pause before a Redis that ended because its disk was full is restarted.
const FULL_DISK_RESTART_AFTER: Duration = Duration::from_millis(300);

/// Fault that was injected and is not healed yet.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) fault: Fault,
    heal_at: Instant,
    /// Connection slots that are taken until the fault is healed.
    slots: Option<Slots>,
    /// Replica that will replace its master.
    replica: Option<Redis>,
    /// Time at which the Redis on a full disk was found to have ended.
    ended_at: Option<Instant>,
}

impl Active {
    /// Injects a fault. Returns it with a note for the log, which may be empty.
    ///
    /// # Errors
    /// Fails if the fault can't be injected, which implies nothing about the pipeline.
    pub(crate) fn inject(
        fault: Fault,
        pipeline: &mut Pipeline,
        everysec: bool,
    ) -> Result<(Self, String), String> {
        let Fault { kind, target, other, length, amount } = fault;
        let (mut slots, mut replica, mut note) = (None, None, String::new());
        match kind {
            Kind::KillFrontend => pipeline.frontends[target].kill(),
            Kind::FreezeFrontend => pipeline.frontends[target].signal("STOP"),
            Kind::OtherFileFrontend => pipeline.restart_frontend_with(target, File::Otherwise),
            Kind::KillWorker => pipeline.workers[target].kill(),
            Kind::FreezeWorker => pipeline.workers[target].signal("STOP"),
            Kind::OldFileWorker => pipeline.restart_worker_with(target, File::Yesterday),
            Kind::OtherFileWorker => pipeline.restart_worker_with(target, File::Otherwise),
            Kind::KillResults => pipeline.results.kill(),
            Kind::KillRedis => pipeline.redis[target].kill(),
            Kind::FreezeRedis => pipeline.redis[target].signal("STOP"),
            // Less memory than an empty Redis needs.
            Kind::FullRedis => drop(pipeline.redis[target].cli(&["CONFIG", "SET", "maxmemory", "500kb"])?),
            Kind::FullDisk => pipeline.redis[target].restart_with_room(u64::from(amount) * 2048)?,
            Kind::CutBack => note = cut_back(target, pipeline, everysec)?,
            Kind::PromoteReplica => replica = Some(pipeline.replica(target)?),
            Kind::CutFrontendReplies => pipeline.from_frontends[target].set(Mode::Cut),
            Kind::StallFrontendReplies => pipeline.from_frontends[target].set(Mode::Stall),
            Kind::CutWorkerReplies => pipeline.from_workers[target][other].set(Mode::Cut),
            Kind::StallWorkerReplies => {
                // Often for both workers: the entries of this queue are then read long after later ones of the other.
                for worker in pipeline.from_workers.iter().cycle().skip(target).take(1 + amount as usize % 2)
                {
                    worker[other].set(Mode::Stall);
                }
            }
            Kind::PartWorker => pipeline.from_workers[target][other].set(Mode::Part),
            Kind::CutCommitReplies => pipeline.to_store.iter().for_each(|proxy| proxy.set(Mode::CutCommits)),
            Kind::StallStoreReplies => pipeline.to_store[target].set(Mode::Stall),
            Kind::KillPostgres => pipeline.postgres.kill()?,
            Kind::FreezePostgres => pipeline.postgres.freeze()?,
            Kind::RestartPostgres => pipeline.postgres.restart_immediate(),
            Kind::TerminateSessions => pipeline.postgres.terminate_sessions()?,
            Kind::TakeSlots => {
                slots = Some(pipeline.postgres.take_slots());
                // First wait until the free slots are taken, or sessions that are terminated would get one of those.
                std::thread::sleep(Duration::from_millis(200));
                pipeline.postgres.terminate_sessions()?;
            }
            Kind::RollBackPostgres => pipeline.postgres.keep()?,
            Kind::ClockFrontend | Kind::ClockWorker | Kind::ClockResults | Kind::ClockPostgres => {
                clock(fault, pipeline).step(fault.step());
                note = format!("by {} s", fault.step());
            }
        }
        Ok((Self { fault, heal_at: Instant::now() + length, slots, replica, ended_at: None }, note))
    }

    pub(crate) fn group(&self) -> Group {
        self.fault.kind.group()
    }

    /// Returns whether the store can't be asked now, or may be stopped at any moment.
    pub(crate) fn keeps_from_asking(&self) -> bool {
        // Postgres keeps running until it is rolled back, when this fault is healed.
        self.group() == Group::Postgres && self.fault.kind != Kind::RollBackPostgres
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.heal_at
    }

    /// Continues the fault: restarts a Redis while its disk is full, as an orchestrator would.
    ///
    /// # Errors
    /// Fails if the Redis can't be started.
    pub(crate) fn tend(&mut self, pipeline: &mut Pipeline) -> Result<(), String> {
        let redis = &mut pipeline.redis[self.fault.target];
        if self.fault.kind != Kind::FullDisk || !redis.has_ended() {
            return Ok(());
        }
        let since = *self.ended_at.get_or_insert_with(Instant::now);
        if since.elapsed() < FULL_DISK_RESTART_AFTER {
            return Ok(());
        }
        self.ended_at = None;
        redis.restart_with_room(u64::from(self.fault.amount))
    }

    /// Ends the fault.
    ///
    /// # Errors
    /// Fails if a stopped process does not start again.
    pub(crate) fn heal(self, pipeline: &mut Pipeline) -> Result<(), String> {
        let Fault { kind, target, other, .. } = self.fault;
        match kind {
            Kind::KillFrontend => pipeline.frontends[target].revive(),
            Kind::FreezeFrontend => pipeline.frontends[target].signal("CONT"),
            Kind::OtherFileFrontend => pipeline.restart_frontend_with(target, File::Right),
            Kind::KillWorker => pipeline.workers[target].revive(),
            Kind::FreezeWorker => pipeline.workers[target].signal("CONT"),
            Kind::OldFileWorker | Kind::OtherFileWorker => pipeline.restart_worker_with(target, File::Right),
            Kind::KillResults => pipeline.results.revive(),
            Kind::KillRedis | Kind::FullDisk => pipeline.redis[target].restart()?,
            Kind::CutBack => {
                pipeline.redis[target].restart()?;
                for worker in &pipeline.from_workers {
                    worker[target].set(Mode::Pass);
                }
            }
            Kind::PromoteReplica => {
                if let Some(replica) = self.replica {
                    pipeline.promote(target, replica)?;
                }
            }
            Kind::FreezeRedis => pipeline.redis[target].signal("CONT"),
            Kind::FullRedis => drop(pipeline.redis[target].cli(&["CONFIG", "SET", "maxmemory", "0"])?),
            Kind::CutFrontendReplies | Kind::StallFrontendReplies => {
                pipeline.from_frontends[target].set(Mode::Pass);
            }
            Kind::CutWorkerReplies | Kind::StallWorkerReplies | Kind::PartWorker => {
                pipeline.from_workers.iter().for_each(|worker| worker[other].set(Mode::Pass));
            }
            Kind::CutCommitReplies | Kind::StallStoreReplies => {
                pipeline.to_store.iter().for_each(|proxy| proxy.set(Mode::Pass));
            }
            Kind::KillPostgres => pipeline.postgres.restart(),
            Kind::FreezePostgres => pipeline.postgres.thaw()?,
            Kind::RestartPostgres | Kind::TerminateSessions => {}
            Kind::TakeSlots => drop(self.slots),
            Kind::RollBackPostgres => pipeline.postgres.roll_back()?,
            Kind::ClockFrontend | Kind::ClockWorker | Kind::ClockResults | Kind::ClockPostgres => {
                clock(self.fault, pipeline).step(0);
            }
        }
        Ok(())
    }
}

/// Truncates the file of a Redis to what was synced. Returns a note about it.
fn cut_back(target: usize, pipeline: &mut Pipeline, everysec: bool) -> Result<String, String> {
    if everysec {
        for worker in &pipeline.from_workers {
            worker[target].set(Mode::Part);
        }
        std::thread::sleep(BACKLOG_FOR);
    }
    let cut = pipeline.redis[target].cut_back()?;
    Ok(format!("{} of {} bytes were synced", cut.to, cut.from))
}

/// Returns the clock that a fault affects.
fn clock(fault: Fault, pipeline: &mut Pipeline) -> &mut Clock {
    let clocks = &mut pipeline.clocks;
    match fault.kind {
        Kind::ClockFrontend => &mut clocks.frontends[fault.target],
        Kind::ClockWorker => &mut clocks.workers[fault.target],
        Kind::ClockResults => &mut clocks.results,
        _ => &mut clocks.postgres,
    }
}
