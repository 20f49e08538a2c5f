//! The site that a node is started with: `shoal run --apply`.

use std::path::Path;
use std::sync::Arc;

use shoal_cluster::identity::ClusterSecret;
use shoal_model::Site;
use shoal_model::site::{Absent, Problems, read_site};
use shoal_proto::admin::{ApplyRequest, ApplyResponse};

use super::change::apply;
use super::manner::Manner;
use super::next_site::next_site;
use crate::node::Node;

/// Applies a site file that lies on this machine: `shoal run --apply`.
pub async fn apply_file(node: &Arc<Node>, path: &Path) -> anyhow::Result<ApplyResponse> {
    let request = ApplyRequest {
        site_json: read_first_site(path).await?.to_canonical_json(),
        message: format!("applied from {} at start", path.display()),
        force: true,
        ..ApplyRequest::default()
    };
    let manner = Manner::usual(node);
    apply(node, request, "local", manner).await.map_err(|status| anyhow::anyhow!("{}", status.message()))
}

/// The site in `path`, with the files that it names.
pub async fn read_first_site(path: &Path) -> anyhow::Result<Site> {
    let name = path.display().to_string();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?;
    let mut site = read_site(&name, &text)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    for named in site.take_files() {
        let (path, file) = (named.path(), directory.join(&named.file));
        let read = tokio::fs::read(&file).await.map_err(|error| format!("cannot be read: {error}"));
        read.and_then(|content| named.fill(content))
            .map_err(|why| anyhow::anyhow!("{name}: {path}: {} {why}", file.display()))?;
    }
    Ok(site)
}

/// Whether a cluster that has no site would take this one.
pub fn check_first_site(secret: &ClusterSecret, site: Site) -> Result<(), Problems> {
    next_site(secret, &Site::default(), site.into(), Absent::Keep).map(drop)
}
