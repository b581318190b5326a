//! Standbys: copies of a server that follow its log and can take its place.

use std::fs;

use super::{IMMEDIATE, Postgres, READY_WITHIN, append_settings, data, new_dir};
use crate::{Child, wait};

impl Postgres {
    /// Starts a hot standby of this server, which answers read-only queries.
    ///
    /// It reads the log from `port` of 127.0.0.1: this server's own port, or that of a proxy in front, which can cut
    /// the link between the two. Its name is `name`; commits wait for it if `synchronous_standby_names` of the primary
    /// contains that name. It has the settings of this server, overridden by `settings`.
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
        // After a cut of the link it would retry only every 5 s by default.
        let primary = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
        append_settings(
            &dir,
            &[("primary_conninfo", primary.as_str()), ("wal_retrieve_retry_interval", "200ms")],
        );
        append_settings(&dir, settings);
        if let Err(error) = fs::write(data(&dir).join("standby.signal"), "") {
            panic!("can't create a standby in {}: {error}", dir.display());
        }
        Self::serve(install, child, dir, Vec::new())
    }

    /// Waits, at most 20 s, until a standby has replayed everything that this server has written to its log so far.
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

    /// Promotes this standby, so that it accepts writes. Its data is what it has received as a standby.
    pub fn promote(&self) {
        let promoted = self.psql("postgres", "SELECT pg_promote(true, 60)");
        if promoted != "t" {
            panic!("the standby was not promoted\n{}", self.child().tail());
        }
    }
}
