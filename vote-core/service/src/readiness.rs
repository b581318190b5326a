//! Readiness of a service: what its admin routes tell about it.

use crate::Shutdown;

/// Tells whether a service can do its work now. Each service has a type `Health` that does.
///
/// The methods are called for each request to `/readyz` and `/metrics`, so they should look at known state rather than
/// ask other systems. A closure that returns what [`ready`](Self::ready) returns is a readiness without remarks.
pub trait Readiness: Send + Sync + 'static {
    /// Succeeds if the service can do its work.
    ///
    /// # Errors
    /// Returns the reasons why it can't, in one line: it should get no requests now.
    fn ready(&self) -> Result<(), String>;

    /// Returns what does not work although the service is ready, in one line; `None` if everything works.
    fn remarks(&self) -> Option<String> {
        None
    }
}

impl<F: Fn() -> Result<(), String> + Send + Sync + 'static> Readiness for F {
    fn ready(&self) -> Result<(), String> {
        self()
    }
}

/// Readiness that ends when a shutdown is requested: a process that finishes its work should get no more requests.
#[derive(Debug)]
pub(crate) struct UntilShutdown<R> {
    pub(crate) readiness: R,
    pub(crate) shutdown: Shutdown,
}

impl<R: Readiness> Readiness for UntilShutdown<R> {
    fn ready(&self) -> Result<(), String> {
        if self.shutdown.is_requested() { Err("shutting down".to_owned()) } else { self.readiness.ready() }
    }

    fn remarks(&self) -> Option<String> {
        self.readiness.remarks()
    }
}
