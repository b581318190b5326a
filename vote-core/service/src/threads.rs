//! One runtime per core: each thread serves its own connections, so that nothing moves between cores.

use std::{any::Any, fmt::Display, io, num::NonZero, panic, thread};

use tokio::{runtime, sync::mpsc};

use crate::Shutdown;

/// Why a thread ended before a shutdown was requested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadError {
    /// The thread or its runtime could not be started.
    #[error("thread {name} can't be started: {source}")]
    Start {
        /// Name of the thread.
        name: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The future of the thread returned an error.
    #[error("thread {name}: {message}")]
    Failed {
        /// Name of the thread.
        name: String,
        /// Text of the error.
        message: String,
    },
    /// The future of the thread panicked, which is a bug.
    #[error("thread {name} panicked: {message}")]
    Panicked {
        /// Name of the thread.
        name: String,
        /// Message of the panic.
        message: String,
    },
}

/// Returns the number of cores available to this process.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs `serve` for each item, on a thread of its own with a single-threaded tokio runtime, and waits for all threads.
/// If one fails, triggers `shutdown`, so that the others finish their work in progress.
///
/// The threads run on if the returned future is dropped.
///
/// # Errors
/// Fails with the first error that occurred; all errors are logged.
pub async fn run_on_threads<T, F, Fut, E>(
    items: Vec<T>,
    shutdown: &Shutdown,
    serve: F,
) -> Result<(), ThreadError>
where
    T: Send + 'static,
    F: FnOnce(T) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut results = start(items, serve);
    let mut first = Ok(());
    while let Some(result) = results.recv().await {
        if let Err(error) = result {
            tracing::error!("{error}");
            shutdown.trigger();
            first = first.and(Err(error));
        }
    }
    first
}

/// Starts the threads, and returns the receiver of their results, which ends with the last of them.
fn start<T, F, Fut, E>(items: Vec<T>, serve: F) -> mpsc::UnboundedReceiver<Result<(), ThreadError>>
where
    T: Send + 'static,
    F: FnOnce(T) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), E>>,
    E: Display,
{
    let (done, results) = mpsc::unbounded_channel();
    for (number, item) in items.into_iter().enumerate() {
        let name = format!("vote-{number}");
        let (serve, ended, thread_name) = (serve.clone(), done.clone(), name.clone());
        let started = thread::Builder::new().name(name.clone()).spawn(move || {
            let result = panic::catch_unwind(panic::AssertUnwindSafe(|| run(&thread_name, || serve(item))));
            let result = result.unwrap_or_else(|panic| {
                Err(ThreadError::Panicked { name: thread_name, message: panic_message(&*panic) })
            });
            // Without a receiver, nothing waits for the threads any more.
            let _ = ended.send(result);
        });
        if let Err(source) = started {
            let _ = done.send(Err(ThreadError::Start { name, source }));
            break;
        }
    }
    results
}

fn run<Fut, E>(name: &str, make: impl FnOnce() -> Fut) -> Result<(), ThreadError>
where
    Fut: Future<Output = Result<(), E>>,
    E: Display,
{
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ThreadError::Start { name: name.to_owned(), source })?;
    runtime
        .block_on(async { make().await })
        .map_err(|e| ThreadError::Failed { name: name.to_owned(), message: e.to_string() })
}

/// Returns the message of a panic, or "no message" if it has none.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn each_item_gets_a_thread_and_all_are_awaited() {
        let sum = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&sum);
        run_on_threads(vec![1, 2, 4], &Shutdown::new(), async move |item| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            shared.fetch_add(item, Ordering::Relaxed);
            Ok::<(), String>(())
        })
        .await
        .unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 7);
    }

    #[tokio::test]
    async fn a_failure_stops_the_others_and_is_returned() {
        let shutdown = Shutdown::new();
        let others = shutdown.clone();
        let result = run_on_threads(vec![true, false], &shutdown, async move |fails| {
            if fails {
                return Err("no disk");
            }
            others.requested().await;
            Ok(())
        });
        assert_eq!(result.await.unwrap_err().to_string(), "thread vote-0: no disk");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_that_names_the_thread() {
        let shutdown = Shutdown::new();
        let result = run_on_threads(vec![()], &shutdown, async |()| {
            assert!(std::env::args().count() == 0, "broken");
            Ok::<(), String>(())
        });
        assert_eq!(result.await.unwrap_err().to_string(), "thread vote-0 panicked: broken");
    }
}
