//! The tasks of a worker, none of which ends without somebody noticing.

use std::future::Future;

use tokio::sync::mpsc;

/// Starts tasks, and tells of those that end by themselves. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    ended: mpsc::UnboundedSender<Ended>,
}

/// A task that ended though it should not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// What it did.
    pub(crate) task: String,
    /// Why it ended.
    pub(crate) reason: String,
}

impl Tasks {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ended, receive) = mpsc::unbounded_channel();
        (Self { ended }, receive)
    }

    /// Starts a task that may end when it has nothing more to do, but not by a panic.
    pub(crate) fn spawn(&self, task: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let (ended, task) = (self.ended.clone(), task.into());
        let work = tokio::spawn(work);
        tokio::spawn(async move {
            if let Err(e) = work.await
                && e.is_panic()
            {
                // Nobody listens any more when the worker itself is gone.
                drop(ended.send(Ended { task, reason: e.to_string() }));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_an_orderly_end_is_not() {
        let (tasks, mut ended) = Tasks::new();
        tasks.spawn("done", async {});
        tasks.spawn("broken", async { panic!("a bug") });
        let told = ended.recv().await.unwrap();
        assert_eq!(told.task, "broken");
        assert!(told.reason.contains("a bug"), "{told:?}");
        drop(tasks);
        assert_eq!(ended.recv().await, None);
    }
}
