//! How one authority takes the place of another, as this node sees it: whom it believes, whether all others do, and who still
//! shows what the old one has signed.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use shoal_cluster::identity::{Identity, Succession, sha256_hex};
use shoal_model::NodeId;
use shoal_model::state::{Command, KEEPING_KEYS, KeyOrder, SuccessionStep};

use crate::node::{Node, now_ms};
use crate::report::{NodeReport, Wanted};

/// Between two looks of the leader.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Has the new authority sign once every node that is heard believes it, whenever this node leads, for as long as it is polled.
pub async fn keep_succession(node: Arc<Node>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let waiting = node.log.with_state(|state| {
            let succession = state.keys.succession.as_ref().filter(|succession| !succession.has_switched);
            succession.map(|succession| (succession.begun, sha256_hex(&succession.other)))
        });
        let Some((begun, next)) = waiting.filter(|_| node.leads()) else {
            continue;
        };
        let reports = node.ask_reports(Wanted::default()).await;
        let doubters: Vec<&str> = reports
            .iter()
            .filter(|(_, _, report)| report.as_ref().is_none_or(|report| !report.believes.contains(&next)))
            .map(|(_, name, _)| name.as_str())
            .collect();
        if !doubters.is_empty() {
            tracing::debug!(nodes = doubters.join(", "), "the new authority is not believed by all yet");
            continue;
        }
        let step = SuccessionStep::Switch { begun, at_ms: now_ms() };
        let command = Command::KeepKeys(KeyOrder::Authority(step));
        match node.of_its_own("KeepKeys", node.log.propose_as_leader(command)).await {
            Ok(_) => tracing::info!(
                authority = next,
                "every node that is heard believes the new authority: it signs"
            ),
            Err(error) => tracing::debug!(%error, "the new authority does not sign yet"),
        }
    }
}

impl Node {
    /// Every member knows what it means: since it was done once, and before that once each has said so.
    pub(crate) fn knows_successions(&self) -> bool {
        self.log.with_state(|state| state.keys.succession.is_some() || !state.keys.retired.is_empty())
            || self.members_without(KEEPING_KEYS).is_empty()
    }

    /// Whom a node believes whose certificate is by `authority`, as the log says; `None` = the log has not begun.
    pub(crate) fn succession_with(&self, authority: &CertificateDer<'static>) -> Option<Succession> {
        self.log.with_state(|state| {
            if state.nodes.is_empty() {
                return None;
            }
            let other = state.keys.succession.as_ref().map(|succession| &succession.other);
            let believed = std::iter::once(&state.ca_certificate).chain(other);
            let others = believed.filter(|der| ***der != **authority);
            // Who shows what the newer one has signed shows as well who has certified that.
            let shows_newer = *state.ca_certificate == **authority;
            let bridge = state.keys.succession.as_ref().filter(|s| s.has_switched && shows_newer);
            Some(Succession {
                others: others.map(|der| CertificateDer::from(der.clone())).collect(),
                bridge: bridge.map(|succession| CertificateDer::from(succession.bridge.clone())),
                former: state.keys.retired.clone(),
            })
        })
    }

    /// The authority that signs has not signed what this node shows.
    pub(super) fn is_succeeded(&self, identity: &Identity) -> bool {
        self.log.with_state(|state| !state.nodes.is_empty() && *state.ca_certificate != *identity.ca_der)
    }

    /// Members that are not known to show what the authority with this hash has signed.
    pub(crate) fn members_of_others(
        &self,
        sha256: &str,
        reports: &[(NodeId, String, Option<NodeReport>)],
    ) -> Vec<String> {
        let has = |id: NodeId| {
            let report =
                reports.iter().find(|(of, _, _)| *of == id).and_then(|(_, _, report)| report.as_ref());
            report.is_some_and(|report| report.authority == sha256)
        };
        self.members().into_iter().filter(|(id, _)| !has(*id)).map(|(_, member)| member.name).collect()
    }
}
