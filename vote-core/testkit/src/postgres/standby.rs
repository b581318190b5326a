//! Standbys: a copy of a server that follows its log, and can take its place.

use std::fs;

use super::{IMMEDIATE, Postgres, READY_WITHIN, append_settings, data, new_dir};
use crate::{Child, wait};

impl Postgres {
    /// Starts a standby of this server, a hot one that answers reading queries. It asks for the log at `port` of
    /// 127.0.0.1, which is this server's own or that of a proxy before it, so that the two can be cut off from each
    /// other. It names itself `name`, as `synchronous_standby_names` of the primary does where commits are to wait
    /// for it. Its settings are those of this server and then `settings`.
    pub fn standby(&self, name: &str, port: u16, settings: &[(&str, &str)]) -> Self {
        let (install, dir) = (super::Install::find(), new_dir(&self.install));
        let mut copy = install.server_command("pg_basebackup");
        copy.arg("-D").arg(data(&dir)).args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &self.port.to_string(),
        ]);
        copy.args(["--checkpoint=fast", "--no-sync"]).env("HOME", &dir).env("LC_ALL", "C");
        let child = Child::start(&copy, dir.clone(), IMMEDIATE);
        if !child.wait_exit(READY_WITHIN).is_some_and(|exit| exit.success()) {
            panic!("pg_basebackup failed\n{}", child.tail());
        }
        // After a cut it tries again every 5 s unless told otherwise.
        let primary = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
        append_settings(
            &dir,
            &[("primary_conninfo", primary.as_str()), ("wal_retrieve_retry_interval", "200ms")],
        );
        append_settings(&dir, settings);
        if let Err(error) = fs::write(data(&dir).join("standby.signal"), "") {
            panic!("can't make a standby in {}: {error}", dir.display());
        }
        Self::serve(install, child, dir)
    }

    /// Waits, at most 20 s, until a standby has replayed all that this server has written to its log by now.
    pub fn wait_for_standby(&self, standby: &Self) {
        let written = self.psql("postgres", "SELECT pg_current_wal_lsn()");
        let asked = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        let caught_up = wait::poll(std::time::Duration::from_secs(20), || {
            (standby.psql("postgres", &asked) == "t").then_some(())
        });
        if caught_up.is_none() {
            panic!("the standby has not replayed {written} after 20 s\n{}", standby.child().tail());
        }
    }

    /// Ends the recovery of a standby, so that it takes writes. It has what it received, and nothing else.
    pub fn promote(&self) {
        let promoted = self.psql("postgres", "SELECT pg_promote(true, 60)");
        if promoted != "t" {
            panic!("the standby was not promoted\n{}", self.child().tail());
        }
    }
}
