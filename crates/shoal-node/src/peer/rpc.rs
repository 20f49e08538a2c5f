//! What nodes ask of each other besides consensus, and the door for those who want to become one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::identity::{Authority, IdentityError};
use shoal_cluster::join::{Token, admits_nodes};
use shoal_cluster::tls::Caller;
use shoal_configlog::{Proposed, on_behalf_of};
use shoal_model::state::{
    Admission, Command, Examined, MemberRecord, OtherReply, ROLE_LEARNER, Refusal, Reply, SetupOrder,
};
use shoal_model::{NodeId, Revision};
use shoal_proto::raft::peer_service_server::PeerService;
use shoal_proto::raft::{
    AwaitAppliedRequest, AwaitAppliedResponse, HandOverRequest, HandOverResponse, JoinRequest, JoinResponse,
    ProposeRequest, ProposeResponse, ReadIndexRequest, ReadIndexResponse, RehearseRequest, RehearseResponse,
    RenewRequest, RenewResponse, ReportRequest, ReportResponse, VouchRequest, VouchResponse,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::admin::failure;
use crate::asking::Who;
use crate::incoming::Connection;
use crate::keys;
use crate::node::{Node, now_ms};
use crate::pace::Pace;
use crate::refusals::Refusals;
use crate::removal::{self, RemovalError, Removing};
use crate::report::Wanted;

/// Strangers being admitted at once.
const MAX_JOINING: usize = 4;
/// Tokens that this node has not heard of, for which it asks the leader each second: all others are refused unasked.
const MAX_LOOK_UPS_PER_SECOND: u32 = 5;
/// For this node to hear of a token that was just made.
const TOKEN_WAIT: Duration = Duration::from_secs(2);
/// Strangers that wait for it, at most.
const MAX_WAITING: usize = 64;
/// How long they wait: less than a joiner does for its answer.
const PLACE_WAIT: Duration = Duration::from_secs(8);
/// For this node to hear of the member whose name is taken.
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// Longest wait of [`PeerService::await_applied`].
const MAX_AWAIT: Duration = Duration::from_secs(60);

/// Serves other nodes.
pub struct PeerRpc {
    node: Arc<Node>,
    joining: Semaphore,
    waiting: Semaphore,
    look_ups: Pace,
    refusals: Refusals,
}

impl PeerRpc {
    /// On behalf of `node`.
    pub fn new(node: Arc<Node>) -> Self {
        let [joining, waiting] = [MAX_JOINING, MAX_WAITING].map(Semaphore::new);
        let look_ups = Pace::per_second(MAX_LOOK_UPS_PER_SECOND);
        Self { node, joining, waiting, look_ups, refusals: Refusals::default() }
    }

    async fn admit(&self, request: JoinRequest) -> Result<JoinResponse, Status> {
        let refuse = |why: String| Status::permission_denied(why);
        let invalid = |why: String| Status::invalid_argument(why);
        let token: Token = request.token.parse().map_err(|error| refuse(format!("{error}")))?;
        if !token.is_of(&self.node.peers.credentials().identity()) || !admits_nodes(&token.role) {
            return Err(refuse("the token is not for joining this cluster".to_owned()));
        }
        let public_key_sha256 =
            Authority::request_key_sha256(&request.csr).map_err(|error| invalid(error.to_string()))?;
        let record = MemberRecord {
            name: request.name,
            region: request.region,
            zone: request.zone,
            cluster_addr: request.cluster_addr,
            admin_addr: request.admin_addr,
            public_key_sha256,
            // It says so itself, once it can.
            purge_lease_ms: 0,
        };
        record.check().map_err(|error| invalid(error.to_string()))?;
        let admission = Admission {
            token_id: token.id.clone(),
            secret_sha256: token.secret_sha256(),
            at_ms: now_ms(),
            node: record.clone(),
        };
        self.check_token(&admission).await?;
        self.check_setup(&request.timing, request.max_voters)?;
        let level = self.node.log.with_state(|state| state.level.number);
        check_version(request.knows_level, request.oldest_level, level).map_err(refuse)?;
        let mut proposed = self.propose(&admission).await?;
        // Only who has a valid token gets so far.
        if matches!(proposed.reply, Reply::Refused(Refusal::NameTaken(_))) {
            self.make_room(&record.name, token.role == ROLE_LEARNER, proposed.index).await?;
            proposed = self.propose(&admission).await?;
        }
        let node_id = proposed.reply.admitted().map_err(|other| match other {
            OtherReply::Refused(refusal) => refuse(refusal.to_string()),
            OtherReply::Stray => failure::reply(other),
        })?;
        let at = record.cluster_addr.as_str();
        tracing::info!(member = %node_id, name = record.name, at, token = token.id, "a node was admitted");
        self.welcome(node_id, &request.csr)
    }

    /// Refuses what the log would refuse, before it is in the log.
    async fn check_token(&self, admission: &Admission) -> Result<(), Status> {
        let examine = || self.node.log.with_state(|state| state.examine(admission));
        let mut examined = examine();
        if examined == Examined::Unheard {
            if !self.look_ups.takes(Instant::now()) {
                let why = "too many unknown tokens are being shown; try again in a moment";
                return Err(Status::resource_exhausted(why));
            }
            let index = self.node.log.try_read_index().await.map_err(failure::propose)?;
            self.node.await_applied(index, Revision(0), TOKEN_WAIT).await;
            examined = examine();
        }
        let refusal = match examined {
            Examined::Fits => return Ok(()),
            Examined::Unheard => Refusal::UnknownToken,
            Examined::Refused(refusal) => refusal,
        };
        Err(Status::permission_denied(refusal.to_string()))
    }

    /// Refuses a node that was told something else of the cluster than what is so: who started it should know.
    fn check_setup(&self, timing: &str, max_voters: u32) -> Result<(), Status> {
        let order = SetupOrder::read(timing, max_voters)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match self.node.log.with_state(|state| state.setup.contradicts(order)) {
            why if why.is_empty() => Ok(()),
            why => Err(Status::permission_denied(format!(
                "{why}: leave --timing and --max-voters out, nodes that join take over what there is"
            ))),
        }
    }

    async fn propose(&self, admission: &Admission) -> Result<Proposed, Status> {
        self.node.log.propose(Command::Admit(admission.clone())).await.map_err(failure::propose)
    }

    /// A new machine takes the name of one that is gone: the old member is removed, unless it is heard or nobody here has
    /// ever heard it, or it may vote and the new one would not. `index` is where the log has refused the name.
    async fn make_room(&self, name: &str, learns: bool, index: u64) -> Result<(), Status> {
        self.node.await_applied(index, Revision(0), ROOM_WAIT).await;
        let holder = self.node.log.with_state(|state| {
            state.nodes.iter().find(|(_, member)| member.name == name).map(|(id, _)| *id)
        });
        let Some(id) = holder else { return Ok(()) };
        if learns && self.node.may_vote(id) {
            return Err(Status::permission_denied(format!(
                "there is already a node called {name:?}, which may vote, and a token for learners does not replace it: start this \
                 one with another --name, or remove that one with `shoal node remove {name}`"
            )));
        }
        match removal::remove(&self.node, id, Removing::Replaced).await {
            Ok(removal) => {
                tracing::info!(member = %id, name, was = removal.state, "a member was removed: another machine takes its name");
                Ok(())
            }
            Err(RemovalError::Log(error)) => Err(failure::propose(error)),
            Err(error) => Err(Status::permission_denied(format!(
                "there is already a node called {name:?}, and it cannot be replaced: {error}; \
                 start this one with another --name, or remove that one with `shoal node remove {name}`"
            ))),
        }
    }

    /// Says who was refused and why: not more often than strangers may fill the log.
    fn note_refusal(&self, from: &str, status: &Status) {
        let Some(unsaid) = self.refusals.note(Instant::now()) else { return };
        let why = status.message();
        tracing::warn!(from, why = ?why, unsaid, "a node was refused that wanted to join");
    }

    /// Lets nodes through that are members, and says who: strangers, operators and removed nodes are refused.
    fn only_members<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let connection = request.extensions().get::<Connection>();
        match connection.and_then(|connection| connection.caller.as_ref()) {
            Some(Caller::Node(id)) if self.node.knows(*id) => Ok(*id),
            // By this code, and by nothing else, the node learns what has become of it.
            Some(Caller::Node(id)) if self.node.is_expelled(*id) => {
                Err(Status::permission_denied(format!("{id} was removed from this cluster")))
            }
            _ => Err(Status::unauthenticated("only nodes of this cluster may call this")),
        }
    }

    /// Everything a new node needs: its certificate, the cluster's secret, and whom to talk to.
    fn welcome(&self, node_id: NodeId, csr: &[u8]) -> Result<JoinResponse, Status> {
        let identity = &self.node.identity;
        let (peers, setup) = self.node.log.with_state(|state| {
            let peers = state.nodes.iter().filter(|(id, _)| **id != node_id);
            let peers = peers.map(|(id, member)| format!("{}={}", id.0, member.cluster_addr)).collect();
            (peers, state.setup)
        });
        let internal = |error: IdentityError| Status::internal(error.to_string());
        let authority = self.node.authority().map_err(internal)?;
        let certificate = authority.sign_node(csr, node_id, self.node.node_validity()).map_err(internal)?;
        let succession = self.node.succession_with(authority.certificate()).unwrap_or_default();
        Ok(JoinResponse {
            node_id: node_id.0,
            cluster_id: identity.cluster_id.to_string(),
            certificate: certificate.to_vec(),
            ca_certificate: authority.certificate().to_vec(),
            cluster_secret: identity.secret.expose().to_vec(),
            peers,
            cluster_epoch: identity.cluster_epoch,
            timing: setup.timing_name(),
            max_voters: setup.max_voters.into(),
            other_authorities: succession.others.iter().map(|other| other.to_vec()).collect(),
            bridge: succession.bridge.map(|bridge| bridge.to_vec()).unwrap_or_default(),
            gossip_keys: self.node.gossip.keys().expose().map(<[u8]>::to_vec).collect(),
        })
    }
}

/// Whether a version that `knows` levels from `oldest` on can be a node of a cluster at this `level`.
fn check_version(knows: u32, oldest: u32, level: u32) -> Result<(), String> {
    if knows < level {
        return Err(format!(
            "the cluster is at level {level}, and the version of this node knows up to level {knows}: start the version \
             that the other nodes have"
        ));
    }
    if oldest > level {
        return Err(format!(
            "the cluster is at level {level}, and the version of this node works from level {oldest} on: start the \
             version that the other nodes have, or upgrade them one release after the other"
        ));
    }
    Ok(())
}

#[tonic::async_trait]
impl PeerService for PeerRpc {
    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let caller = self.only_members(&request)?;
        self.node.log.answer_propose(caller, request.into_inner(), now_ms()).await.map(Response::new)
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        let caller = self.only_members(&request)?;
        self.node.log.answer_read_index(caller).await.map(Response::new)
    }

    async fn await_applied(
        &self,
        request: Request<AwaitAppliedRequest>,
    ) -> Result<Response<AwaitAppliedResponse>, Status> {
        self.only_members(&request)?;
        let AwaitAppliedRequest { index, revision, timeout_ms } = request.into_inner();
        let timeout = Duration::from_millis(timeout_ms.into()).min(MAX_AWAIT);
        let reached = self.node.await_applied(index, Revision(revision), timeout).await;
        Ok(Response::new(AwaitAppliedResponse {
            applied_index: reached.applied_index,
            active_revision: reached.active.0,
            refused: reached.refused.unwrap_or_default(),
            out_of_space: reached.out_of_space.unwrap_or_default(),
        }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.only_members(&request)?;
        let report = self.node.full_report(Wanted::of(request.get_ref()));
        let report = serde_json::to_vec(&report).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ReportResponse { report }))
    }

    async fn rehearse(
        &self,
        request: Request<RehearseRequest>,
    ) -> Result<Response<RehearseResponse>, Status> {
        self.only_members(&request)?;
        self.node.rehearse(request.into_inner()).await.map(Response::new)
    }

    async fn vouch(&self, request: Request<VouchRequest>) -> Result<Response<VouchResponse>, Status> {
        self.only_members(&request)?;
        Ok(Response::new(self.node.vouch_for(NodeId(request.get_ref().node_id)).await))
    }

    async fn hand_over(
        &self,
        request: Request<HandOverRequest>,
    ) -> Result<Response<HandOverResponse>, Status> {
        let caller = self.only_members(&request)?;
        let answer = self.node.log.answer_hand_over(request.get_ref()).await?;
        tracing::info!(asked_by = %caller, "leadership was handed over");
        Ok(Response::new(answer))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let connection = request.extensions().get::<Connection>();
        let from = connection.map_or_else(String::new, |connection| connection.from.to_string());
        let caller = match connection.and_then(|connection| connection.caller.as_ref()) {
            Some(_) => Some(self.only_members(&request)?),
            // It has nothing to show any more.
            None => None,
        };
        let _one_of_few = self.joining.try_acquire().map_err(|_| {
            Status::resource_exhausted("too many nodes ask for certificates at once; try again in a moment")
        })?;
        keys::renew(&self.node, request.get_ref(), caller, from).await.map(Response::new)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let connection = request.extensions().get::<Connection>();
        let from = connection.map_or_else(String::new, |connection| connection.from.to_string());
        if let Some(place) = connection.and_then(|connection| connection.place.as_ref()) {
            place.has_spoken();
        }
        let busy = || Status::resource_exhausted("too many nodes are joining at once; try again in a moment");
        let _in_line = self.waiting.try_acquire().map_err(|_| busy())?;
        let place = tokio::time::timeout(PLACE_WAIT, self.joining.acquire()).await;
        let _one_of_few = place.map_err(|_| busy())?.map_err(|_| busy())?;
        let request = request.into_inner();
        let token = request.token.parse::<Token>().ok();
        let who = token.map(|token| Who::with_token(&token.id, &token.role, from.clone()));
        let asker = who.and_then(|who| self.node.asker(who, "Join"));
        let admitted = on_behalf_of(asker, self.admit(request)).await;
        admitted.map(Response::new).inspect_err(|status| self.note_refusal(&from, status))
    }
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn versions_meet_at_the_level_of_the_cluster() {
        let check = |knows, oldest, level, expected| {
            assert_eq!(check_version(knows, oldest, level).is_ok(), expected, "{knows} {oldest} {level}");
        };
        check(7, 6, 7, true);
        check(8, 7, 7, true); // one ahead
        check(9, 8, 7, false); // two ahead
        check(9, 8, 8, true);
        check(7, 6, 8, false); // the upgrade is finalized
        check(0, 0, 0, true); // of before there were levels
        check(0, 0, 7, false);
    }
}
