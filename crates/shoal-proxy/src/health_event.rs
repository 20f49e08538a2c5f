//! What this node has found out about its endpoints, on the way to the others.

use shoal_model::EndpointId;
use shoal_policy::health::Verdict;

/// What this node has found out about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    /// This node's checks have come to a new verdict.
    Verdict {
        /// On which.
        endpoint: EndpointId,
        /// What.
        verdict: Verdict,
    },
    /// This node checks it no more, so it has no verdict on it.
    Unassigned {
        /// Which.
        endpoint: EndpointId,
    },
    /// This node's own traffic failed there too often.
    Ejected {
        /// Which.
        endpoint: EndpointId,
    },
    /// This node's own traffic goes there again.
    Readmitted {
        /// Which.
        endpoint: EndpointId,
    },
}
