//! Following the revisions of a cluster, from one node to the next as they are lost.

use std::time::{Duration, Instant};

use shoal_proto::admin::{WatchRequest, WatchResponse};
use tonic::Request;

use super::{Client, Target, Unconnected, deepest, refusal};
use crate::failure::{Exit, Failure};

/// A node that says nothing for so long is lost: there is a sign of life every 5 s.
const SILENCE: Duration = Duration::from_secs(8);
/// Between two rounds of asking the nodes.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a node is followed no more.
enum Ended {
    /// It is lost, or cannot help.
    Lost(Failure),
    /// No other node could help.
    Over(Failure),
}

impl Client {
    /// `Watch`: `told` is called for each revision from `from` on (0 = the active one, and what follows), once and in their
    /// order, whichever node tells of it, and with nothing whenever there is nothing new for a while. Ends when `told` fails, or when no node answers: at first, or later for as long as
    /// calls may take.
    pub async fn watch(
        &self,
        from: u64,
        mut told: impl FnMut(Option<WatchResponse>) -> Result<(), Failure>,
    ) -> Failure {
        let mut next = from;
        let mut heard: Option<Instant> = None;
        loop {
            let mut reasons = Vec::new();
            for target in &self.targets {
                let before = Instant::now();
                match self.follow(target, &mut next, &mut heard, &mut told).await {
                    Ended::Over(failure) => return failure,
                    // Whoever was heard may be the first to answer again.
                    Ended::Lost(failure) if heard.is_none_or(|heard| heard < before) => {
                        reasons.push(format!("{target}: {}", failure.why));
                    }
                    Ended::Lost(_) => {}
                }
            }
            if heard.is_none_or(|heard| heard.elapsed() > self.deadline) {
                let why = format!("no node answers ({})", reasons.join(", "));
                let failure = Failure::new(Exit::Remote, "watch", why).of_node(self.asked(), None);
                return failure.try_command("shoal status");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Follows one node; `next` is the first revision that is still to be told.
    async fn follow(
        &self,
        target: &Target,
        next: &mut u64,
        heard: &mut Option<Instant>,
        told: &mut impl FnMut(Option<WatchResponse>) -> Result<(), Failure>,
    ) -> Ended {
        let lost = |why: String| Ended::Lost(Failure::new(Exit::Remote, "watch", why));
        let mut node = match Box::pin(self.connect(target)).await {
            Ok(node) => node,
            Err(Unconnected::Misconfigured(failure)) => return Ended::Over(failure),
            Err(Unconnected::Unreachable(why)) => return lost(why),
        };
        let silent = || lost(format!("it said nothing for {} s", SILENCE.as_secs()));
        let asking = node.watch(Request::new(WatchRequest { from_revision: *next }));
        let mut telling = match tokio::time::timeout(SILENCE, Box::pin(asking)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ended::Lost(refusal("watch", target, &status)),
            Err(_) => return silent(),
        };
        loop {
            let event = match tokio::time::timeout(SILENCE, telling.message()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return lost("it stops".to_owned()),
                Ok(Err(status)) => return lost(deepest(&status)),
                Err(_) => return silent(),
            };
            *heard = Some(Instant::now());
            if event.event == "bookmark" {
                // It may not hear of what is new; another one may.
                if !event.quorum && self.targets.len() > 1 {
                    return lost("it has no quorum".to_owned());
                }
                match told(None) {
                    Ok(()) => continue,
                    Err(failure) => return Ended::Over(failure),
                }
            }
            // A node never tells of less than it was asked for; one that did would make the follower go back.
            if event.revision < *next {
                return lost(format!("it told of revision {}, which is known", event.revision));
            }
            *next = event.revision + 1;
            if let Err(failure) = told(Some(event)) {
                return Ended::Over(failure);
            }
        }
    }
}
