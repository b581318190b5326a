//! CPU time of processes, user and system, from `/proc`.

use std::{fs, path::Path};

/// Clock ticks per second of the times in `/proc`: 100 on every Linux (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// Times of one process or thread.
struct Stat {
    parent: u32,
    own: f64,
    /// Time of its children that have ended.
    ended: f64,
}

impl Stat {
    fn of_process(pid: u32) -> Option<Self> {
        Self::read(Path::new(&format!("/proc/{pid}/stat")))
    }

    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        // The name, in parentheses, may contain anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: (ticks(11)? + ticks(12)?) / TICKS,
            ended: (ticks(13)? + ticks(14)?) / TICKS,
        })
    }
}

/// Returns the seconds that a process has used so far; 0 if there is no such process.
#[must_use]
pub fn process_seconds(pid: u32) -> f64 {
    Stat::of_process(pid).map_or(0.0, |stat| stat.own)
}

/// Returns the seconds that a thread has used so far, given its folder `/proc/PID/task/TID`; 0 if it has ended.
#[must_use]
pub fn thread_seconds(task: &Path) -> f64 {
    Stat::read(&task.join("stat")).map_or(0.0, |stat| stat.own)
}

/// Returns the seconds that a process and all of its children have used so far, including those that have ended; 0 if
/// there is no such process.
#[must_use]
pub fn tree_seconds(pid: u32) -> f64 {
    let Some(root) = Stat::of_process(pid) else { return 0.0 };
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let children = entries
        .filter_map(|entry| Stat::of_process(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|child| child.parent == pid);
    root.own + root.ended + children.map(|child| child.own).sum::<f64>()
}
