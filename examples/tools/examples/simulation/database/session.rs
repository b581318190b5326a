//! Sessions over the simulated network.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vote_core::{
    Partition, PollSlug, Session, VoterKey,
    count::{Ballot, CommitPlan, QuarantinedFrame, audit::Finding},
    store::{Acquired, Lookup, StoreError},
};

use super::{Backend, CALL_TIMEOUT, Client, SESSION_TIMEOUT, unavailable};
use crate::server::at_once;

/// A session over the network.
#[derive(Debug)]
pub(super) struct ClientSession {
    client: Client,
    backend: Arc<Backend>,
    /// Whether a commit is under way. The server completes it even if the client is gone.
    committing: bool,
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        if !self.committing {
            self.backend.end();
        }
    }
}

impl ClientSession {
    pub(super) fn new(client: Client, session: Box<dyn Session>, run: u64) -> Self {
        let backend = Arc::new(Backend {
            session: Mutex::new(Some(session)),
            owner: Arc::clone(&client.process),
            link: Arc::clone(&client.link),
            run,
            active_at: Mutex::new(Instant::now()),
        });
        client.database.lock().sessions.push(Arc::downgrade(&backend));
        Self { client, backend, committing: false }
    }

    /// Makes a call while the process runs.
    async fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.client.process.running().await;
        let answer = self.exchange(call).await;
        self.client.process.running().await;
        answer
    }

    /// Sends a call and waits for its answer.
    async fn exchange<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.client.link.request().await.is_err() {
            return self.client.no_answer().await;
        }
        let answer = self.execute(call)?;
        if self.client.link.reply().await.is_err() {
            return self.client.no_answer().await;
        }
        let alive = self.backend.session.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if alive && self.client.database.run() == Some(self.backend.run) { answer } else { unavailable() }
    }

    /// Executes a call at the server, unless the session has ended.
    fn execute<T>(
        &self,
        call: impl FnOnce(&mut dyn Session) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        if self.client.database.run() != Some(self.backend.run) {
            return unavailable();
        }
        let mut session = self.backend.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = session.as_mut() else { return unavailable() };
        *self.backend.active_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(call(&mut **session))
    }

    /// Sends a commit that fails at the client, but that the server executes later if the session still exists then.
    async fn commit_late(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        self.committing = true;
        let (plan, backend) = (plan.clone(), Arc::clone(&self.backend));
        let database = Arc::clone(&self.client.database);
        let late = self.client.random.up_to(SESSION_TIMEOUT);
        tokio::spawn(async move {
            sleep(late).await;
            let mut session = backend.session.lock().unwrap_or_else(PoisonError::into_inner);
            if database.run() == Some(backend.run)
                && let Some(session) = session.as_mut()
            {
                let result = at_once(session.commit(&plan));
                tracing::debug!(partition = %plan.partition, version = plan.version, ?result, "late commit");
            }
            // The client of this session is gone.
            session.take();
        });
        sleep(self.client.random.up_to(CALL_TIMEOUT)).await;
        unavailable()
    }
}

#[async_trait]
impl Session for ClientSession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        self.call(|session| at_once(session.unowned())).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        self.call(|session| at_once(session.complete(partition, version, poll))).await
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        let owner = &self.client.process.name.clone();
        self.call(|session| {
            let acquired = at_once(session.acquire(partition));
            let owned = matches!(acquired, Ok(Some(_)));
            tracing::debug!(owner, %partition, owned, "acquire");
            acquired
        })
        .await
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        tracing::debug!(owner = self.client.process.name, %partition, "release");
        self.call(|session| at_once(session.release(partition))).await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        self.call(|session| at_once(session.lookup(partition, poll, voters, lookup))).await
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        self.call(|session| at_once(session.replays(partition, limit))).await
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let loss = self.client.link.loss();
        if loss > 0 && self.client.random.chance(loss / 4) {
            self.client.process.running().await;
            let answer = self.commit_late(plan).await;
            self.client.process.running().await;
            return answer;
        }
        let owner = &self.client.process.name.clone();
        self.call(|session| {
            let result = at_once(session.commit(plan));
            tracing::debug!(owner, partition = %plan.partition, version = plan.version, ?result, "commit");
            result
        })
        .await
    }
}
