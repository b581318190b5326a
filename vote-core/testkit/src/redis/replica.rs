//! Replicas: copies of a server that follow it and can take its place.

use std::time::Duration;

use super::Redis;
use crate::wait;

/// Time limit for a replica to copy the data that a test wrote.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(20);

impl Redis {
    /// Starts a durable replica of this server, and waits until it follows and has written its own append-only file.
    ///
    /// It reads the data from `port` of 127.0.0.1: this server's own port, or that of a proxy in front, which can cut
    /// the link between the two.
    pub fn replica(&self, port: u16) -> Self {
        // By default this server would wait 5 s for further replicas.
        self.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        let replica = Self::start();
        replica.cli(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        // The copied data is first in memory only, and then written to a new file.
        let follows = || {
            replica.info("replication", "master_link_status") == "up"
                && replica.info("persistence", "aof_rewrite_in_progress") == "0"
                && replica.info("persistence", "aof_rewrite_scheduled") == "0"
        };
        if wait::poll(FOLLOWS_WITHIN, || follows().then_some(())).is_none() {
            panic!("the replica does not follow after {FOLLOWS_WITHIN:?}\n{}", replica.child().tail());
        }
        replica
    }

    /// Waits, at most 20 s, until a replica has all data of this server. No client may write meanwhile.
    pub fn wait_for_replica(&self, replica: &Self) {
        let has_caught_up = || {
            let ours = self.info("replication", "master_repl_offset");
            replica.info("replication", "slave_repl_offset") == ours
        };
        if wait::poll(FOLLOWS_WITHIN, || has_caught_up().then_some(())).is_none() {
            panic!("the replica has not caught up after {FOLLOWS_WITHIN:?}\n{}", replica.child().tail());
        }
    }

    /// Promotes this replica to an independent server. Its data is what it has received as a replica.
    pub fn promote(&self) {
        self.cli(&["REPLICAOF", "NO", "ONE"]);
    }

    /// Returns a value of `INFO`; empty if there is no value of that name.
    fn info(&self, section: &str, name: &str) -> String {
        let text = self.cli(&["INFO", section]);
        let mut values = text.lines().filter_map(|line| line.trim().split_once(':'));
        values.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }
}
