//! What happens to the cluster meanwhile: a new revision every ten seconds, and a new process now and then.

use std::time::Duration;

use anyhow::Result;
use cluster_tests::{Cluster, SelfSigned, SiteFile};
use serde_json::json;

use crate::origins::Origins;
use crate::tally::Tally;

/// Between two revisions.
pub const EVERY: Duration = Duration::from_secs(10);
/// The site, in as many variants as are asked for.
pub struct Changes {
    site: SiteFile,
}

impl Changes {
    pub fn new(origins: &Origins, certificate: &SelfSigned) -> Self {
        let site = SiteFile::new()
            .proxy("live", &[origins.plain.endpoint()])
            .secure("soak", &certificate.chain_file, &certificate.key_file)
            .route("cached", json!({ "path_prefix": "/cached", "upstream": "live", "cache": {} }))
            .upstream("chat", json!({ "endpoints": [origins.chat.to_string()] }))
            .route("chat", json!({ "path_prefix": "/chat", "upstream": "chat" }))
            .upstream("grpc", json!({ "endpoints": [origins.grpc.to_string()], "protocol": "h2c" }))
            .route("grpc", json!({ "path_prefix": "/soak.Echo", "upstream": "grpc" }));
        Self { site }
    }

    /// Variant `n`: a route comes and goes, and one keeps changing.
    pub fn site(&self, n: usize) -> SiteFile {
        let site: SiteFile = self.site.clone();
        let changing = json!({ "path": format!("/changing/{n}"), "upstream": "live" });
        let site = site.route("changing", changing);
        if n.is_multiple_of(2) {
            site
        } else {
            site.route("odd", json!({ "path": "/odd", "upstream": "live" }))
        }
    }

    /// Applies variant `n`, each time on another node.
    pub async fn apply(&self, cluster: &Cluster, n: usize, tally: &Tally) -> Result<()> {
        let node = n % cluster.nodes.len();
        let output = cluster.try_apply(node, &self.site(n)).await?;
        if output.code != 0 {
            tally.fault(node, "apply", output.text());
        }
        Ok(())
    }
}

/// Replaces the process of a node by a new one of the same binary.
pub async fn upgrade(cluster: &Cluster, node: usize, tally: &Tally) -> Result<()> {
    let output = cluster.nodes[node].upgrade(&[]).await?;
    if output.code != 0 {
        tally.fault(node, "upgrade", output.text());
    }
    Ok(())
}
