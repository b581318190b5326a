//! One runtime per core: each thread serves its own connections, so that nothing moves between cores.

use std::{any::Any, fmt::Display, io, num::NonZero, panic, sync::mpsc, thread};

use tokio::runtime;

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

/// Runs the futures `make(0)` to `make(threads - 1)`, each on a thread of its own with a single-threaded tokio runtime,
/// and waits for all of them. If one fails, triggers `shutdown`, so that the others finish their work in progress.
///
/// Blocks; must not be called within a runtime.
///
/// # Errors
/// Fails with the first error that occurred; all errors are logged.
pub fn run_per_core<F, Fut, E>(threads: usize, shutdown: &Shutdown, make: F) -> Result<(), ThreadError>
where
    F: Fn(usize) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<(), E>>,
    E: Display,
{
    let (done, results) = mpsc::channel();
    let mut first = Ok(());
    let mut fail = |error: ThreadError| {
        tracing::error!("{error}");
        shutdown.trigger();
        if first.is_ok() {
            first = Err(error);
        }
    };
    for number in 0..threads {
        let name = format!("vote-{number}");
        let (make, done, thread_name) = (make.clone(), done.clone(), name.clone());
        let started = thread::Builder::new().name(name.clone()).spawn(move || {
            let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| run(&thread_name, || make(number))));
            let result = ended.unwrap_or_else(|panic| {
                Err(ThreadError::Panicked { name: thread_name, message: panic_message(&*panic) })
            });
            // The receiver waits for all threads that were started.
            let _ = done.send(result);
        });
        if let Err(source) = started {
            fail(ThreadError::Start { name, source });
            break;
        }
    }
    drop(done);
    for result in results {
        if let Err(e) = result {
            fail(e);
        }
    }
    first
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

    #[test]
    fn each_thread_has_a_number_and_all_are_awaited() {
        let sum = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&sum);
        run_per_core(3, &Shutdown::new(), move |number| {
            let sum = Arc::clone(&shared);
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                sum.fetch_add(number, Ordering::Relaxed);
                Ok::<(), String>(())
            }
        })
        .unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_failure_stops_the_others_and_is_returned() {
        let shutdown = Shutdown::new();
        let others = shutdown.clone();
        let result = run_per_core(2, &shutdown, move |number| {
            let others = others.clone();
            async move {
                match number {
                    0 => Err("no disk"),
                    _ => {
                        others.requested().await;
                        Ok(())
                    }
                }
            }
        });
        assert_eq!(result.unwrap_err().to_string(), "thread vote-0: no disk");
    }

    #[test]
    fn a_panic_is_an_error_that_names_the_thread() {
        let result = run_per_core(1, &Shutdown::new(), |_| async {
            assert!(std::env::args().count() == 0, "broken");
            Ok::<(), String>(())
        });
        assert_eq!(result.unwrap_err().to_string(), "thread vote-0 panicked: broken");
    }
}
