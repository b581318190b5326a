//! Tasks of a worker. A task that panics ends the worker.

use std::future::Future;

use tokio::sync::mpsc;

/// Starts tasks, and reports those that panic. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    ended: mpsc::UnboundedSender<Ended>,
}

/// A task that ended although it should not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Name of the task.
    pub(crate) task: String,
    /// Why it ended.
    pub(crate) reason: String,
}

impl Tasks {
    /// Creates a starter of tasks, and the receiver of its reports.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ended, receive) = mpsc::unbounded_channel();
        (Self { ended }, receive)
    }

    /// Starts a task that may end when its work is done, but must not panic.
    pub(crate) fn spawn(&self, task: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let (ended, task) = (self.ended.clone(), task.into());
        let work = tokio::spawn(work);
        tokio::spawn(async move {
            if let Err(e) = work.await
                && e.is_panic()
            {
                // The receiver is gone if the worker has ended; then the report is not needed.
                drop(ended.send(Ended { task, reason: e.to_string() }));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_an_orderly_end_is_not() {
        let (tasks, mut ended) = Tasks::new();
        tasks.spawn("done", async {});
        tasks.spawn("broken", async { panic!("a bug") });
        let report = ended.recv().await.unwrap();
        assert_eq!(report.task, "broken");
        assert!(report.reason.contains("a bug"), "{report:?}");
        drop(tasks);
        assert_eq!(ended.recv().await, None);
    }
}
