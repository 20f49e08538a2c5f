//! The names in certificates: which node, or that it is an operator, and of which cluster.

use rustls_pki_types::ServerName;
use shoal_model::{ClusterId, NodeId, Role};

/// Node `node_id` of a cluster.
pub fn node(node_id: NodeId, cluster_id: ClusterId) -> String {
    format!("{node_id}.{}", domain(cluster_id))
}

/// Every node of a cluster has this name too, for callers to whom any will do.
pub fn any_node(cluster_id: ClusterId) -> String {
    format!("node.{}", domain(cluster_id))
}

/// Operators of a cluster who have `role`; which of them is in the subject.
pub fn operator(role: Role, cluster_id: ClusterId) -> String {
    format!("{}.{}", operator_label(role), domain(cluster_id))
}

/// The cluster of an operator whose certificate has the name `name`; `None` = it is no operator's.
pub fn operator_cluster(name: &str) -> Option<ClusterId> {
    let (who, cluster_id) = split(name)?;
    role(who).map(|_| cluster_id)
}

/// Who may do everything has the name that all operators had before there were roles. A node of that time knows no other
/// one, and refuses its bearer.
const fn operator_label(role: Role) -> &'static str {
    match role {
        Role::Viewer => "role-viewer",
        Role::Operator => "role-operator",
        Role::Admin => "operator",
    }
}

/// The role of an operator whose name begins with `label`.
pub(super) fn role(label: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|role| operator_label(*role) == label)
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
