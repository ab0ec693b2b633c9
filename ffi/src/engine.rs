//! A client and the tasks that work for the host.

use std::future::Future;
use std::sync::Arc;

use malai_core::api::{Client, ClientOptions};
use malai_core::task::Scope;
use malai_core::timeouts;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use crate::MalaiError;
use crate::runtime::runtime;

/// What a `Malai` and its commands share; when the last of them is gone the network closes.
///
/// A host's future may be dropped at any await (Kotlin, Python) or never although its task was cancelled
/// (Swift). So the work is always a task of ours: a change runs to its end whoever waits, anything else ends
/// with whoever waits.
pub(crate) struct Engine {
    client: Arc<Client>,
    scope: Scope,
    runtime: &'static Handle,
}

impl Engine {
    pub(crate) async fn open(options: ClientOptions) -> Result<Self, MalaiError> {
        let (runtime, scope) = (runtime()?, Scope::new());
        let opened = spawn(runtime, || scope.spawn("open", Client::open(options)));
        let client = Arc::new(settle("open", opened.await, MalaiError::shut_down)?);
        Ok(Self { client, scope, runtime })
    }

    /// Changes something: runs to its end, even if the host drops the call.
    pub(crate) async fn change<T, F>(
        &self,
        name: &'static str,
        work: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<T, MalaiError>
    where
        F: Future<Output = Result<T, malai_core::Error>> + Send + 'static,
        T: Send + 'static,
    {
        self.refuse_after_shutdown()?;
        let work = work(Arc::clone(&self.client));
        settle(name, spawn(self.runtime, || self.scope.spawn(name, work)).await, MalaiError::shut_down)
    }

    /// Asks for something: ends when the host drops the call.
    pub(crate) async fn ask<T, F>(
        &self,
        name: &'static str,
        work: impl FnOnce(Arc<Client>) -> F,
    ) -> Result<T, MalaiError>
    where
        F: Future<Output = Result<T, malai_core::Error>> + Send + 'static,
        T: Send + 'static,
    {
        self.refuse_after_shutdown()?;
        let work = work(Arc::clone(&self.client));
        let task = spawn(self.runtime, || self.scope.spawn_until_stop(name, work));
        let _ends_with_us = AbortOnDrop(task.abort_handle());
        let result = settle(name, task.await.map(Option::flatten), MalaiError::shut_down);
        unless_stopped(&self.scope, result, MalaiError::shut_down)
    }

    /// Starts work of a scope within this one; whoever starts it learns of its end by other means.
    pub(crate) fn start<F>(&self, scope: &Scope, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(spawn(self.runtime, || scope.spawn(name, work)));
    }

    /// Does something for a scope within this one until that stops, even if the host drops the call.
    ///
    /// # Errors
    /// The work's own, and [`MalaiError::Cancelled`] when the scope stops first.
    pub(crate) async fn within<T, F>(
        &self,
        scope: &Scope,
        name: &'static str,
        work: F,
    ) -> Result<T, MalaiError>
    where
        F: Future<Output = Result<T, malai_core::Error>> + Send + 'static,
        T: Send + 'static,
    {
        let joined = spawn(self.runtime, || scope.spawn_until_stop(name, work)).await;
        let result = settle(name, joined.map(Option::flatten), MalaiError::cancelled);
        unless_stopped(scope, result, MalaiError::cancelled)
    }

    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// A scope that stops with this one.
    pub(crate) fn scope(&self) -> Scope {
        self.scope.child()
    }

    /// Ends everything: what only waits at once, changes when they are done or after a grace.
    pub(crate) async fn shutdown(&self) -> Result<(), MalaiError> {
        self.scope.stop();
        let (client, scope) = (Arc::clone(&self.client), self.scope.clone());
        // A scope of its own: it waits for all of the other.
        let closing = spawn(self.runtime, || {
            Scope::new().spawn("shutdown", async move {
                client.close().await;
                scope.shutdown(timeouts::CLOSE).await;
                Ok(())
            })
        });
        settle("shutdown", closing.await, MalaiError::shut_down)
    }

    fn refuse_after_shutdown(&self) -> Result<(), MalaiError> {
        if self.scope.is_stopping() { Err(MalaiError::shut_down()) } else { Ok(()) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.scope.is_stopping() {
            return;
        }
        self.scope.stop();
        let client = Arc::clone(&self.client);
        drop(spawn(self.runtime, || Scope::new().spawn("close", async move { client.close().await })));
    }
}

/// Ends a task when the call that waits for it is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Spawns with the runtime around it, which the host's threads do not have.
fn spawn<T>(runtime: &Handle, start: impl FnOnce() -> JoinHandle<T>) -> JoinHandle<T> {
    let _entered = runtime.enter();
    start()
}

/// A failure after the stop is the stop's doing: work that is being polled when it comes sees the network
/// close first.
pub(crate) fn unless_stopped<T>(
    scope: &Scope,
    result: Result<T, MalaiError>,
    stopped: fn() -> MalaiError,
) -> Result<T, MalaiError> {
    result.map_err(|error| if scope.is_stopping() { stopped() } else { error })
}

fn settle<T>(
    name: &str,
    joined: Result<Option<Result<T, malai_core::Error>>, JoinError>,
    stopped: fn() -> MalaiError,
) -> Result<T, MalaiError> {
    match joined {
        Ok(Some(result)) => Ok(result?),
        Ok(None) => Err(stopped()),
        Err(error) if error.is_panic() => Err(MalaiError::panicked(name)),
        Err(_) => Err(stopped()),
    }
}
