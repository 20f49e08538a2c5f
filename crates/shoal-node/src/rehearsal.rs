//! Asking every live node whether it could serve what the site is to become, before it is a revision: what nodes have of
//! their own are sockets and versions, and only they know whether those fit.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::channel::{MAX_MESSAGE_BYTES, UnknownPeer};
use shoal_cluster::tls::cause_of;
use shoal_model::site::{Absent, Change, Delta, ObjectName, merge};
use shoal_model::{NodeId, Revision, Site};
use shoal_proto::admin::NodeVerdict;
use shoal_proto::raft::{RehearseRequest, RehearseResponse};
use tonic::{Code, Request, Status};

use crate::activation::{compile_site, one_reason};
use crate::everybody::{Asked, ask_all};
use crate::hard_work::{LIMIT, TRIALS};
use crate::node::Node;

/// Changes that a node tries out at once: the others wait.
pub(crate) const MAX_REHEARSALS: usize = 2;
/// For a node to say whether it could serve the next revision: who is slower than that is not waited for.
const TIMEOUT: Duration = Duration::from_secs(3);
/// For a node to apply the revision that the change is laid over.
const CATCH_UP_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a change that nodes are asked about: it is one message between nodes, which has room for a little more.
const MAX_BYTES: usize = MAX_MESSAGE_BYTES - (64 << 10);

/// What a node makes of a revision that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// It would serve it.
    Takes,
    /// It would refuse it, for this reason.
    Refuses(String),
    /// It would, and it refuses the active one already: the change makes nothing worse.
    RefusesAlready(String),
    /// Nobody knows, for this reason.
    Unknown(String),
}

/// What one node said.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    id: NodeId,
    pub(crate) node: String,
    pub(crate) says: Says,
}

impl Verdict {
    /// As operators are told.
    pub(crate) fn message(self) -> NodeVerdict {
        let (verdict, why) = match self.says {
            Says::Takes => ("takes", String::new()),
            Says::Refuses(why) => ("refuses", why),
            Says::RefusesAlready(why) => ("refuses_already", why),
            Says::Unknown(why) => ("unknown", why),
        };
        NodeVerdict { node_id: self.id.0, node: self.node, verdict: verdict.to_owned(), why }
    }
}

impl Node {
    /// Whether nodes could differ about these changes: all compile alike if they are of one version, so that only what
    /// sockets are made of is left.
    pub(crate) fn may_differ(&self, changes: &[Change]) -> bool {
        let view = self.gossip.view().load_full();
        let own = env!("CARGO_PKG_VERSION");
        let is_other = |id: NodeId| view.node(id).is_some_and(|node| &*node.version != own);
        changes.iter().any(|change| matches!(change.kind, "listener" | "certificate"))
            || self.live_members().into_iter().any(|(id, _)| is_other(id))
    }

    /// Asks every live node whether it could serve `delta` laid over `base`.
    pub(crate) async fn rehearse_everywhere(self: &Arc<Self>, base: Revision, delta: &Delta) -> Vec<Verdict> {
        let request = RehearseRequest {
            base_revision: base.0,
            put_json: delta.put.to_canonical_json(),
            remove: delta.removed.iter().map(ObjectName::to_string).collect(),
        };
        let asked = ask_all(self.live_members(), |id, _| {
            let (node, request) = (self.clone(), request.clone());
            async move {
                match tokio::time::timeout(TIMEOUT, node.rehearse_on(id, request)).await {
                    Ok(Ok(RehearseResponse { refused, .. })) if refused.is_empty() => Says::Takes,
                    Ok(Ok(RehearseResponse { refused, refuses_base: true })) => Says::RefusesAlready(refused),
                    Ok(Ok(RehearseResponse { refused, .. })) => Says::Refuses(refused),
                    Ok(Err(status)) if status.code() == Code::Unimplemented => {
                        Says::Unknown("its version cannot be asked".to_owned())
                    }
                    Ok(Err(status)) => Says::Unknown(cause_of(&status)),
                    Err(_) => Says::Unknown(format!("it did not answer within {} s", TIMEOUT.as_secs())),
                }
            }
        });
        let verdict = |asked: Asked<Says>| Verdict {
            id: asked.id,
            node: asked.name,
            says: asked.answer.unwrap_or_else(Says::Unknown),
        };
        asked.await.into_iter().map(verdict).collect()
    }

    async fn rehearse_on(
        self: &Arc<Self>,
        node: NodeId,
        request: RehearseRequest,
    ) -> Result<RehearseResponse, Status> {
        if node == self.id() {
            return self.rehearse(request).await;
        }
        let bytes = request.put_json.len();
        if bytes > MAX_BYTES {
            return Err(Status::out_of_range(format!("nodes are not asked about changes of {bytes} bytes")));
        }
        let mut client =
            self.peers.control(node).map_err(|error: UnknownPeer| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(request);
        request.set_timeout(TIMEOUT);
        Ok(client.rehearse(request).await?.into_inner())
    }

    /// Whether this node could serve it. Nothing is opened, and nothing that is open is touched.
    pub(crate) async fn rehearse(
        self: &Arc<Self>,
        request: RehearseRequest,
    ) -> Result<RehearseResponse, Status> {
        let base = Revision(request.base_revision);
        let mut applied = self.log.applied();
        let caught_up = async {
            while self.log.with_state(|state| state.revisions.active().0) < base
                && applied.changed().await.is_ok()
            {}
        };
        _ = tokio::time::timeout(CATCH_UP_WAIT, caught_up).await;
        let Some(content) = self.log.with_state(|state| state.revisions.content(base)) else {
            return Err(Status::failed_precondition(format!("it has not applied revision {base} yet")));
        };
        let wrong = |why: String| Status::invalid_argument(why);
        let removed =
            request.remove.iter().map(|object| object.parse()).collect::<Result<Vec<ObjectName>, _>>();
        let removed = removed.map_err(wrong)?;
        let one_of_few =
            self.rehearsing.clone().acquire_owned().await.map_err(|_| Status::aborted("this node stops"))?;
        let node = self.clone();
        let rehearsed = tokio::task::spawn_blocking(move || {
            // Whoever has asked may have gone: there is room for another one only when this is done.
            let _one_of_few = one_of_few;
            let work = move || node.compile_and_bind(&content, &request.put_json, &removed);
            TRIALS.within(LIMIT, work).unwrap_or_else(|given_up| Err(given_up.to_string()))
        });
        let refused =
            rehearsed.await.map_err(|_| Status::aborted("this node stops"))?.err().unwrap_or_default();
        let refuses_base = self.activation.borrow().refusal_of(base).is_some();
        Ok(RehearseResponse { refused, refuses_base })
    }

    fn compile_and_bind(&self, base: &str, put: &str, removed: &[ObjectName]) -> Result<(), String> {
        let read = |text| Site::from_json(text).map_err(|error| format!("it cannot be read: {error}"));
        let next = merge(&read(base)?, read(put)?, Absent::Keep).without(removed);
        let view = compile_site(&self.identity, Revision(0), next)?;
        self.proxy.rehearse(&view).map_err(one_reason)
    }
}
