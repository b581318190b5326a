//! Costs of calls to a queue on Redis.

use std::{cell::Cell, fs, path::Path};

use vote_core::{
    Partitions, Pepper, Position, Queue, QueueId,
    count::RegisteredPoll,
    queue::{Frame, Layout, PollRecord, RedisQueue},
};
use vote_testkit::Redis;
use vote_worker::commands::capacity::{Costs, Unit};

use super::{redis, repeat, repeat_alone, units};
use crate::voters::{self, Electorate, append};

/// Number of different flushes of a loop, which are appended in turn.
const FLUSHES: usize = 50;

/// A queue that accepts votes.
pub(super) struct Open {
    pub(super) id: QueueId,
    pub(super) queue: RedisQueue,
    pub(super) electorate: Electorate,
}

pub(super) fn layout(partitions: Partitions) -> Layout {
    Layout { partitions, fingerprint: Pepper::new(vec![1; 32]).unwrap().fingerprint() }
}

/// Creates a queue, and activates it as a worker does.
pub(super) async fn open(url: &str, prefix: &str, partitions: u16, polls: u32) -> Open {
    let (partitions, polls) = (Partitions::new(partitions).unwrap(), voters::polls(polls));
    let queue = RedisQueue::connect(url, prefix).unwrap();
    let id = queue.create(layout(partitions), None).await.unwrap();
    let records: Vec<_> = polls.iter().map(|poll| PollRecord::from(&RegisteredPoll::from(poll))).collect();
    queue.record_polls(id, &records).await.unwrap();
    queue.activate(id).await.unwrap();
    Open { id, queue, electorate: Electorate::new(&polls, partitions) }
}

pub(super) async fn measure(costs: &mut Costs) {
    // Without rewrites, the size of the log tells what an entry takes in it.
    let server = Redis::start_with(&[("auto-aof-rewrite-percentage", "0")]);
    appends(&server, costs).await;
    let filled = open(&server.url(), "flush-14-1", 64, 1).await;
    reads(&server, &filled, costs).await;
    trims(&server, &filled, costs).await;
    looks(&server, costs).await;
    wake(&server, &filled, costs).await;
}

/// Compares looks of which each waits for the one before with those that do not.
async fn wake(server: &Redis, open: &Open, costs: &mut Costs) {
    let look = async || drop(open.queue.look(&[]).await);
    let (alone, others) = (repeat_alone(redis(server), look).await, repeat(redis(server), look).await);
    eprintln!("scale: a look alone: {alone:.1?}");
    costs.wake = Unit { client: 0.0, server: (alone.server - others.server).max(0.0) };
}

async fn appends(server: &Redis, costs: &mut Costs) {
    let (mut samples, mut bytes) = (Vec::new(), Vec::new());
    for (frames, votes) in [(1_usize, 1_usize), (14, 1), (100, 1), (14, 16)] {
        let open = open(&server.socket_url(), &format!("flush-{frames}-{votes}"), 64, 1).await;
        let flushes: Vec<Vec<Frame>> =
            (0..FLUSHES).map(|n| flush(&open.electorate, n, frames, votes)).collect();
        let before = (memory(server), log_size(server.dir()));
        let next = Cell::new(0);
        // A frontend has one flush under way.
        let sample = repeat_alone(redis(server), || {
            let turn = next.replace(next.get() + 1);
            append(&open.queue, open.id, &flushes[turn % FLUSHES])
        })
        .await;
        let entries = (next.get() * frames) as f64;
        let of_entry = |before: f64, after: f64| (after - before) / entries;
        bytes.push((of_entry(before.0, memory(server)), of_entry(before.1, log_size(server.dir()))));
        if frames == 1 {
            costs.flush_seconds = sample.seconds;
        }
        eprintln!("scale: a flush of {frames} frames with {votes} votes each: {sample:.1?}");
        samples.push(([1.0, frames as f64, (frames * votes) as f64], sample));
    }
    [costs.flush, costs.frame, costs.frame_vote] = units(&samples);
    // One vote and sixteen, in flushes of 14 frames.
    costs.entry_vote_bytes = (bytes[3].0 - bytes[1].0) / 15.0;
    costs.entry_bytes = bytes[1].0 - costs.entry_vote_bytes;
    costs.log_vote_bytes = (bytes[3].1 - bytes[1].1) / 15.0;
    costs.log_entry_bytes = bytes[1].1 - costs.log_vote_bytes;
}

/// Returns frames with this number of votes each, in different partitions as far as possible.
fn flush(electorate: &Electorate, number: usize, frames: usize, votes: usize) -> Vec<Frame> {
    let partitions: Vec<_> = electorate.partitions.iter().collect();
    let frame = |n: usize| {
        let first = ((number * frames + n) * votes) as u64;
        let partition = partitions[(number * 7 + n) % partitions.len()];
        let votes: Vec<_> =
            (first..first + votes as u64).map(|voter| electorate.vote_in(0, partition, voter)).collect();
        electorate.frames(&votes).remove(0)
    };
    (0..frames).map(frame).collect()
}

// In the loops below a call may time out, on a machine that is busy with other work. It costs the same.

async fn reads(server: &Redis, open: &Open, costs: &mut Costs) {
    let partition = open.electorate.partitions.iter().next().unwrap();
    let starts = vec![Position::START; usize::from(open.electorate.partitions.count())];
    let end = open.queue.backlog(open.id, &starts, 1).await.unwrap()[0].end;
    let mut samples = Vec::new();
    for (after, limit) in [(end, 16), (Position::START, 16), (Position::START, 200), (Position::START, 1000)]
    {
        let entries = open.queue.read(open.id, partition, after, limit).await.unwrap().entries.len();
        let sample = repeat(redis(server), || async {
            let _ = open.queue.read(open.id, partition, after, limit).await;
        })
        .await;
        eprintln!("scale: a read of {entries} entries: {sample:.1?}");
        samples.push(([1.0, entries as f64], sample));
    }
    [costs.read, costs.read_entry] = units(&samples);
}

async fn trims(server: &Redis, open: &Open, costs: &mut Costs) {
    let mut positions = Vec::new();
    for partition in open.electorate.partitions.iter() {
        let read = open.queue.read(open.id, partition, Position::START, 1000).await.unwrap();
        let each_fourth = read.entries.iter().step_by(4);
        positions.extend(each_fourth.map(|entry| (partition, entry.position)));
    }
    let next = Cell::new(0);
    let sample = repeat(redis(server), || async {
        let (partition, position) = positions[next.replace(next.get() + 1) % positions.len()];
        let _ = open.queue.trim(open.id, partition, position).await;
    })
    .await;
    eprintln!("scale: a trim of up to 4 entries: {sample:.1?}");
    [costs.trim] = units(&[([1.0], sample)]);
}

async fn looks(server: &Redis, costs: &mut Costs) {
    let (mut looks, mut statuses, mut backlogs) = (Vec::new(), Vec::new(), Vec::new());
    for (partitions, polls) in [(16_u16, 1_u32), (64, 1), (256, 1), (64, 10)] {
        let open = open(&server.url(), &format!("look-{partitions}-{polls}"), partitions, polls).await;
        let all: Vec<_> = open.electorate.partitions.iter().collect();
        for partition in &all {
            let votes: Vec<_> =
                (0..polls).map(|poll| open.electorate.vote_in(poll as usize, *partition, 1)).collect();
            append(&open.queue, open.id, &open.electorate.frames(&votes)).await;
        }
        // A look may ask for a few partitions, a status has all.
        for asked in [0, all.len() / 4, all.len()] {
            let sample = repeat(redis(server), || async {
                let _ = open.queue.look(&all[..asked]).await;
            })
            .await;
            if asked == all.len() && partitions == 16 {
                costs.look_seconds = sample.seconds;
            }
            eprintln!("scale: a look at {asked} partitions with {polls} polls: {sample:.1?}");
            looks.push(([1.0, asked as f64, asked as f64 * f64::from(polls)], sample));
        }
        let sample = repeat(redis(server), || async {
            let _ = open.queue.status().await;
        })
        .await;
        eprintln!("scale: a status of {partitions} partitions with {polls} polls: {sample:.1?}");
        let (p, counts) = (f64::from(partitions), f64::from(partitions) * f64::from(polls));
        statuses.push(([1.0, p, counts], sample));
        let starts = vec![Position::START; usize::from(partitions)];
        let ends: Vec<_> =
            open.queue.backlog(open.id, &starts, 10).await.unwrap().iter().map(|b| b.end).collect();
        let sample = repeat(redis(server), || async {
            let _ = open.queue.backlog(open.id, &ends, 16).await;
        })
        .await;
        backlogs.push(([1.0, p], sample));
    }
    [costs.look, costs.look_partition, costs.look_count] = units(&looks);
    [costs.status, costs.status_partition, costs.status_count] = units(&statuses);
    [costs.backlog, costs.backlog_partition] = units(&backlogs);
}

fn memory(server: &Redis) -> f64 {
    let info = server.cli(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// Returns the size of the append-only log.
fn log_size(dir: &Path) -> f64 {
    let files = fs::read_dir(dir.join("appendonlydir")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() as f64
}
