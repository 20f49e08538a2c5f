//! Tasks a node cannot do without. One that ends before its time is not started again: nobody knows what it left behind.
//! The node drains and the process ends with an error instead, so that whoever supervises it starts a whole new one.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Losses that are remembered: the first one ends the node.
const MAX_LOSSES: usize = 4;

/// The tasks, and the word that ends them.
#[derive(Clone)]
pub struct VitalTasks {
    tasks: TaskTracker,
    stop: CancellationToken,
    losses: mpsc::Sender<&'static str>,
}

impl VitalTasks {
    /// None yet, and where the names of those that are lost arrive.
    pub fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (losses, lost) = mpsc::channel(MAX_LOSSES);
        (Self { tasks: TaskTracker::new(), stop: CancellationToken::new(), losses }, lost)
    }

    /// Cancelled when the tasks are to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that ends by itself after [`VitalTasks::stop_token`], and not before.
    pub fn spawn(&self, what: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(self.watched(what, task));
    }

    /// Runs a task that goes on when the others are told to end, as long as the process does.
    pub fn spawn_for_good(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.watched(what, async {
            task.await;
            Ok(())
        }));
    }

    fn watched(
        &self,
        what: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (stop, losses) = (self.stop.clone(), self.losses.clone());
        async move {
            // On a task of its own: a panic is a loss as well.
            let why = match tokio::spawn(task).await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => "it returned".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(error) => error.to_string(),
            };
            tracing::error!(what, why, "a task that this node cannot do without has ended");
            if !stop.is_cancelled() {
                _ = losses.try_send(what); // full = the node is on its way out already
            }
        }
    }

    /// Runs a task that is cut off when the others are to end.
    pub fn spawn_until_stop(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(what, async move {
            stop.run_until_cancelled_owned(task).await;
            Ok(())
        });
    }

    /// Tells all tasks to end, and waits for them no longer than `patience`.
    pub async fn end(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_ends_early_is_named() {
        let (tasks, mut lost) = VitalTasks::new();
        tasks.spawn("a", async { anyhow::bail!("no") });
        assert_eq!(lost.recv().await, Some("a"));
        tasks.spawn("b", async { panic!("no") });
        assert_eq!(lost.recv().await, Some("b"));
        tasks.spawn_until_stop("c", async {});
        assert_eq!(lost.recv().await, Some("c"));
    }

    #[tokio::test]
    async fn ending_when_told_is_no_loss() {
        let (tasks, mut lost) = VitalTasks::new();
        tasks.spawn_until_stop("a", std::future::pending());
        let stop = tasks.stop_token();
        tasks.spawn("b", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.end(Duration::from_secs(30)).await;
        drop(tasks);
        assert_eq!(lost.recv().await, None);
    }
}
