//! Revisions as they come, told to whoever follows them: each once, none left out.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::Revision;
use shoal_model::site::{Delta, ObjectName};
use shoal_model::state::{RevisionRecord, Step};
use shoal_proto::admin::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::base::{blocking, stored_site};
use super::failure::{self, Exit, with_exit};
use crate::node::Node;
use crate::sealed_site::redact;
use crate::shares::{NoShare, Portions, Share};

/// Watches that are open on one node.
pub const WATCHES: Portions = Portions { most: 64, each: 8, reserve: 8 };
/// Revisions on their way to a slow follower: the others stay where they are.
const MAX_UNREAD: usize = 2;
/// Between two signs of life.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);

/// Revisions, and signs of life between them.
pub type Watched = ReceiverStream<Result<WatchResponse, Status>>;

/// Follows the revisions of `node` until the caller has enough, or `stop`.
pub fn watch(
    node: &Arc<Node>,
    request: &WatchRequest,
    caller: &str,
    stop: CancellationToken,
) -> Result<Watched, Status> {
    failure::check_log(&node.log)?;
    let place = node.watching.take(caller, 1).map_err(|none| {
        let why = match none {
            NoShare::Taken => format!("{} others watch this node already; ask another one", WATCHES.most),
            NoShare::OwnIsTaken => {
                format!("{caller:?} watches this node {} times already; ask another one", WATCHES.each)
            }
        };
        with_exit(Code::ResourceExhausted, Exit::Remote, why)
    })?;
    let (told, events) = mpsc::channel(MAX_UNREAD);
    let follower =
        Follower { node: node.clone(), told, known: request.from_revision.checked_sub(1).map(Revision) };
    tokio::spawn(async move { stop.run_until_cancelled(follower.follow(place)).await });
    Ok(ReceiverStream::new(events))
}

struct Follower {
    node: Arc<Node>,
    told: mpsc::Sender<Result<WatchResponse, Status>>,
    /// The last revision that was told; `None` = none, and the whole is wanted first.
    known: Option<Revision>,
}

impl Follower {
    async fn follow(mut self, _place: Share) {
        let mut applied = self.node.log.applied();
        let mut bookmark = tokio::time::interval(BOOKMARK_INTERVAL);
        loop {
            applied.borrow_and_update();
            while let Some((step, record)) = self.next() {
                let revision = step.revision;
                let event = blocking(move || event_of(step, record)).await;
                let is_over = event.is_err();
                if self.told.send(event).await.is_err() || is_over {
                    return;
                }
                self.known = Some(revision);
            }
            let is_due = tokio::select! {
                () = self.told.closed() => return,
                changed = applied.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = bookmark.tick() => true,
            };
            if is_due && self.told.send(Ok(self.bookmark())).await.is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<(Step, RevisionRecord)> {
        self.node.log.with_state(|state| {
            let step = state.revisions.after(self.known)?;
            let record = state.revisions.record(step.revision).cloned().unwrap_or_default();
            Some((step, record))
        })
    }

    fn bookmark(&self) -> WatchResponse {
        let revision = self.node.log.with_state(|state| state.revisions.active().0);
        WatchResponse {
            event: "bookmark".to_owned(),
            revision: revision.0,
            quorum: self.node.log.status().quorum,
            ..WatchResponse::default()
        }
    }
}

fn event_of(step: Step, record: RevisionRecord) -> Result<WatchResponse, Status> {
    let site = redact(stored_site(&step.content)?);
    let (event, delta) = match step.before {
        Some(before) => ("delta", Delta::between(&redact(stored_site(&before)?), &site)),
        None => ("full", Delta::from(site)),
    };
    Ok(WatchResponse {
        event: event.to_owned(),
        revision: step.revision.0,
        previous_revision: if event == "delta" { step.revision.0 - 1 } else { 0 },
        put_json: delta.put.to_canonical_json(),
        removed: delta.removed.iter().map(ObjectName::to_string).collect(),
        on_trial: record.is_on_trial(),
        author: record.author,
        message: record.message,
        at_ms: record.at_ms,
        quorum: true,
    })
}
