//! The request to shut down, passed to every part of a process.

use std::{io, process, thread};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Handle to request or await the shutdown of a process or a part of it. Clones share it. A request is never undone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Creates a shutdown that only [`trigger`](Self::trigger) requests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a child: triggering this shutdown triggers the child, but not the other way round.
    ///
    /// Children also reduce contention: a waiting task takes a lock each time it is woken, and tasks of different
    /// threads take different locks if each thread has a child of its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Requests the shutdown: all holders of a clone or a child should finish. Idempotent.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Waits until the shutdown is requested. The future may be dropped, and the method called again.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// True once the shutdown is requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Returns a shutdown that SIGTERM and SIGINT trigger. A second signal ends the process at once, with the exit code
/// that shells report for it: 143 for SIGTERM, 130 for SIGINT.
///
/// A dedicated thread waits for the signals, so that a second one works even if everything else is stuck, and so that
/// the caller needs no runtime.
///
/// # Errors
/// Fails if the handlers or the thread can't be set up.
pub fn on_signals() -> io::Result<Shutdown> {
    let shutdown = Shutdown::new();
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // Registered here rather than on the thread: a signal right after this function returns must find the handler.
    let (mut term, mut int) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let trigger = shutdown.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (name, _) = next(&mut term, &mut int).await;
            tracing::info!(
                "received {name}: finishing work in progress; a second signal ends the process at once"
            );
            trigger.trigger();
            let (name, code) = next(&mut term, &mut int).await;
            tracing::warn!("received {name} again: exiting at once");
            process::exit(code);
        });
    })?;
    Ok(shutdown)
}

async fn next(term: &mut Signal, int: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = term.recv() => ("SIGTERM", 143),
        _ = int.recv() => ("SIGINT", 130),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_triggered_with_its_parent_but_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.trigger();
        assert!(!parent.is_requested() && !second.is_requested());
        parent.trigger();
        assert!(second.is_requested() && parent.child().is_requested());
    }

    #[tokio::test]
    async fn a_request_is_permanent_and_reaches_every_clone() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(!clone.is_requested());
        shutdown.trigger();
        clone.requested().await;
        clone.requested().await;
        assert!(clone.is_requested());
    }
}
