//! The names in certificates: which node, or that it is an operator, and of which cluster.

use rustls_pki_types::ServerName;
use shoal_model::{ClusterId, NodeId};

/// Node `node_id` of a cluster.
pub fn node(node_id: NodeId, cluster_id: ClusterId) -> String {
    format!("{node_id}.{}", domain(cluster_id))
}

/// Every node of a cluster has this name too, for callers to whom any will do.
pub fn any_node(cluster_id: ClusterId) -> String {
    format!("node.{}", domain(cluster_id))
}

/// Operators of a cluster; which of them is in the subject.
pub fn operator(cluster_id: ClusterId) -> String {
    format!("operator.{}", domain(cluster_id))
}

/// [`node`], as TLS wants it.
pub fn node_server_name(node_id: NodeId, cluster_id: ClusterId) -> ServerName<'static> {
    server_name(node(node_id, cluster_id))
}

/// [`any_node`], as TLS wants it.
pub fn any_node_server_name(cluster_id: ClusterId) -> ServerName<'static> {
    server_name(any_node(cluster_id))
}

/// The part before `.<cluster>.shoal.internal`, and the cluster.
pub(super) fn split(name: &str) -> Option<(&str, ClusterId)> {
    let (who, domain) = name.split_once('.')?;
    let cluster_id = domain.strip_suffix(".shoal.internal")?.parse().ok()?;
    Some((who, cluster_id))
}

fn domain(cluster_id: ClusterId) -> String {
    format!("{cluster_id}.shoal.internal")
}

fn server_name(name: String) -> ServerName<'static> {
    ServerName::try_from(name).expect("made of letters, digits and dots")
}
