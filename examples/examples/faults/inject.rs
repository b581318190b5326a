//! Injects faults and heals them.

use std::time::{Duration, Instant};

use crate::{
    fault::{Fault, Group, Kind},
    pipeline::Pipeline,
    postgres::Slots,
    proxy::Mode,
};

/// How long workers are kept from a Redis before it is cut back where it does not sync each write: what they have read
/// and committed by then would not be lost with the queue.
const UNREAD_FOR: Duration = Duration::from_millis(1200);
/// How long a Redis that ended for want of room stays so.
const FULL_DISK_RESTART_AFTER: Duration = Duration::from_millis(300);

/// A fault that was injected and not healed yet.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) fault: Fault,
    heal_at: Instant,
    /// Connection slots that are taken until it is healed.
    slots: Option<Slots>,
    /// When the Redis on a full disk was found to have ended.
    ended_at: Option<Instant>,
}

impl Active {
    /// Injects a fault. What it does to processes shows in their logs; this says what else there is to say.
    ///
    /// # Errors
    /// When it can't be injected, which says nothing of the pipeline.
    pub(crate) fn inject(
        fault: Fault,
        pipeline: &mut Pipeline,
        everysec: bool,
    ) -> Result<(Self, String), String> {
        let Fault { kind, target, other, length, amount } = fault;
        let (mut slots, mut note) = (None, String::new());
        match kind {
            Kind::KillFrontend => pipeline.frontends[target].kill(),
            Kind::FreezeFrontend => pipeline.frontends[target].signal("STOP"),
            Kind::KillWorker => pipeline.workers[target].kill(),
            Kind::FreezeWorker => pipeline.workers[target].signal("STOP"),
            Kind::KillResults => pipeline.results.kill(),
            Kind::KillRedis => pipeline.redis[target].kill(),
            Kind::FreezeRedis => pipeline.redis[target].signal("STOP"),
            // Less than an empty Redis needs.
            Kind::FullRedis => drop(pipeline.redis[target].cli(&["CONFIG", "SET", "maxmemory", "500kb"])?),
            Kind::FullDisk => pipeline.redis[target].restart_with_room(u64::from(amount) * 2048)?,
            Kind::CutBack => {
                if everysec {
                    for worker in &pipeline.from_workers {
                        worker[target].set(Mode::Part);
                    }
                    std::thread::sleep(UNREAD_FOR);
                }
                let cut = pipeline.redis[target].cut_back()?;
                note = format!("{} of {} bytes were synced", cut.to, cut.from);
            }
            Kind::CutFrontendReplies => pipeline.from_frontends[target].set(Mode::Cut),
            Kind::StallFrontendReplies => pipeline.from_frontends[target].set(Mode::Stall),
            Kind::CutWorkerReplies => pipeline.from_workers[target][other].set(Mode::Cut),
            Kind::StallWorkerReplies => {
                // Often for both workers: what this queue holds is then read long after what came later in the other.
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
            Kind::TerminateSessions => pipeline.postgres.terminate_sessions(),
            Kind::TakeSlots => {
                slots = Some(pipeline.postgres.take_slots());
                // What is left of the slots first, or whoever is ended would get one of those again.
                std::thread::sleep(Duration::from_millis(200));
                pipeline.postgres.terminate_sessions();
            }
        }
        Ok((Self { fault, heal_at: Instant::now() + length, slots, ended_at: None }, note))
    }

    pub(crate) fn group(&self) -> Group {
        self.fault.kind.group()
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.heal_at
    }

    /// Keeps the fault going: an orchestrator starts a Redis again also while the disk is full.
    ///
    /// # Errors
    /// When it can't be started.
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
    /// When what was ended does not start again.
    pub(crate) fn heal(self, pipeline: &mut Pipeline) -> Result<(), String> {
        let Fault { kind, target, other, .. } = self.fault;
        match kind {
            Kind::KillFrontend => pipeline.frontends[target].revive(),
            Kind::FreezeFrontend => pipeline.frontends[target].signal("CONT"),
            Kind::KillWorker => pipeline.workers[target].revive(),
            Kind::FreezeWorker => pipeline.workers[target].signal("CONT"),
            Kind::KillResults => pipeline.results.revive(),
            Kind::KillRedis | Kind::FullDisk => pipeline.redis[target].restart()?,
            Kind::CutBack => {
                pipeline.redis[target].restart()?;
                for worker in &pipeline.from_workers {
                    worker[target].set(Mode::Pass);
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
        }
        Ok(())
    }
}
