//! The wish to stop, passed to every part of a process.

use std::{io, process, thread};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// A handle on the end of a process or of a part of it; clones share it. Once requested it stays so.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// One that nothing triggers but [`trigger`](Self::trigger).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that is triggered with this one; to trigger it does not trigger this one.
    ///
    /// Also for speed: whoever waits looks at a lock each time it is woken, and the tasks of another thread, with a
    /// child of their own, look at another.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Asks everyone who holds a clone to finish.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Waits until someone asked to finish. May be dropped and called again.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Whether someone asked to finish.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// A shutdown that SIGTERM and SIGINT trigger. A second signal ends the process at once, with the code a shell shows
/// for it: 143 and 130.
///
/// The signals are awaited on a thread of its own, so that a second one works even if everything else is stuck, and
/// so that this needs no runtime.
///
/// # Errors
/// When the handlers or the thread can't be set up.
pub fn on_signals() -> io::Result<Shutdown> {
    let shutdown = Shutdown::new();
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // Registered here and not on the thread: a signal that comes right after the return must find the handler.
    let (mut term, mut int) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let trigger = shutdown.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (name, _) = next(&mut term, &mut int).await;
            tracing::info!("{name}: finishing what is under way; a second signal ends the process at once");
            trigger.trigger();
            let (name, code) = next(&mut term, &mut int).await;
            tracing::warn!("{name} again: ending at once");
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
    fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.trigger();
        assert!(!parent.is_requested() && !second.is_requested());
        parent.trigger();
        assert!(second.is_requested() && parent.child().is_requested());
    }

    #[tokio::test]
    async fn once_requested_it_stays_so_for_every_clone() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(!clone.is_requested());
        shutdown.trigger();
        clone.requested().await;
        clone.requested().await;
        assert!(clone.is_requested());
    }
}
