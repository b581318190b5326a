//! The operator of a run: runs commands of `vote-worker`, repeated until they succeed, as a person would while the
//! database is unavailable.

use std::{
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Time limit of a command, which otherwise hangs while Postgres is frozen.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a failed command before it is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Command of `vote-worker` that is due at some time of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Time from the start of the run.
    pub(crate) at: Duration,
    pub(crate) arguments: Vec<String>,
}

/// Runs commands one after the other.
#[derive(Debug)]
pub(crate) struct Operator {
    program: PathBuf,
    store: String,
    orders: Vec<Order>,
    done: usize,
    running: Option<(Child, Instant)>,
    not_before: Option<Instant>,
}

impl Operator {
    /// Creates an operator that runs commands of `program` on this store.
    pub(crate) const fn new(program: PathBuf, store: String, orders: Vec<Order>) -> Self {
        Self { program, store, orders, done: 0, running: None, not_before: None }
    }

    /// Returns whether any command was started so far, even if its outcome is not known yet.
    pub(crate) const fn has_begun(&self) -> bool {
        self.done > 0 || self.running.is_some() || self.not_before.is_some()
    }

    /// Returns whether all commands have succeeded.
    pub(crate) const fn is_done(&self) -> bool {
        self.done == self.orders.len()
    }

    /// Starts over with the first command, since a store that was rolled back may have lost their effects.
    pub(crate) fn repeat(&mut self) {
        // A running command may have taken effect before the rollback.
        self.give_up();
        self.done = 0;
    }

    fn give_up(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            // An error only means that it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the next command if it is due, or checks on the running one. Returns a message when a command has ended.
    ///
    /// # Errors
    /// Fails if the program can't be run.
    pub(crate) fn tend(&mut self, elapsed: Duration) -> Result<Option<String>, String> {
        if let Some((child, since)) = &mut self.running {
            let Some(status) = child.try_wait().map_err(|e| e.to_string())? else {
                if since.elapsed() > COMMAND_TIMEOUT {
                    // An error only means that it has ended just now.
                    let _ = child.kill();
                }
                return Ok(None);
            };
            let mut stderr = String::new();
            if let Some(pipe) = &mut child.stderr {
                // On an error the message lacks the rest of the text.
                let _ = pipe.read_to_string(&mut stderr);
            }
            self.running = None;
            self.not_before = Some(Instant::now() + AGAIN_AFTER);
            let Some(order) = self.orders.get(self.done) else { return Ok(None) };
            let what = order.arguments.join(" ");
            // A poll that is closed has been rescheduled before, and was closed by its new time.
            if status.success() || stderr.contains("is closed") {
                self.done += 1;
                return Ok(Some(format!("done: {what}")));
            }
            return Ok(Some(format!("failed: {what}: {}", stderr.trim())));
        }
        let Some(order) = self.orders.get(self.done) else { return Ok(None) };
        if elapsed < order.at || self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        let mut command = Command::new(&self.program);
        command.args(&order.arguments).env_clear().env("VOTE_STORE", &self.store);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| format!("can't run {}: {e}", self.program.display()))?;
        self.running = Some((child, Instant::now()));
        Ok(None)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tends the operator until all commands are done, for at most 10 s; returns whether they are.
    fn tended(operator: &mut Operator) -> bool {
        let start = Instant::now();
        while !operator.is_done() && start.elapsed() < Duration::from_secs(10) {
            operator.tend(Duration::from_secs(1)).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        operator.is_done()
    }

    fn operator(at: u64, script: &str) -> Operator {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Operator::new("/bin/sh".into(), String::new(), vec![Order { at: Duration::from_secs(at), arguments }])
    }

    #[test]
    fn a_command_is_repeated_until_it_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tried").display().to_string();
        let mut operator = operator(1, &format!("test -e {file} || {{ : > {file}; exit 1; }}"));
        assert!(!operator.has_begun());
        assert!(tended(&mut operator) && operator.has_begun());
        operator.repeat();
        assert!(!operator.is_done() && tended(&mut operator));
    }

    #[test]
    fn rescheduling_a_closed_poll_counts_as_done() {
        assert!(tended(&mut operator(1, "echo 'poll pets is closed' >&2; exit 1")));
    }

    #[test]
    fn no_command_runs_before_its_time() {
        let mut early = operator(2, ":");
        early.tend(Duration::from_secs(1)).unwrap();
        assert!(!early.has_begun());
    }
}
