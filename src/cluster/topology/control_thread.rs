//! A thread with a runtime of its own, for what must stay quick while the rest of the node is busy: links, heartbeats,
//! raft. A long command, a snapshot or a sync on another thread cannot make the node look dead.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running control thread. Dropping it ends its runtime and every task on it.
#[derive(Debug)]
pub struct ControlThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ControlThread {
    /// Starts the thread, under this name.
    pub fn start(name: &str) -> io::Result<ControlThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // A dropped sender is a stop too.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(ControlThread { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Where to spawn tasks that shall run on it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs something on the thread and waits for what it gives; `None`: it panicked, or the thread is stopping.
    pub async fn run<F>(&self, future: F) -> Option<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future).await.ok()
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
    }
}
