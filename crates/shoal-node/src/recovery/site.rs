//! The last resort: the site that a node served last, with its private keys, out of a data directory whose log is of no use.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use shoal_cluster::identity::write_private;
use shoal_model::Site;

use crate::data_dir;
use crate::last_known_good::LastKnownGood;
use crate::sealed_site::unseal;

/// A site file that a new cluster can be founded with.
#[derive(Clone, Debug, Serialize)]
pub struct Rebuilt {
    /// The node whose it was.
    pub node: String,
    /// Which revision.
    pub revision: u64,
    /// How many private keys are in it.
    pub keys: usize,
}

/// Writes the site that the node of `data_dir` served last to `file`, mode 0600: its private keys are in it in clear.
///
/// # Errors
/// Why not.
pub fn write_site(data_dir: &Path, file: &Path) -> anyhow::Result<Rebuilt> {
    let dir = data_dir.display();
    let identity = data_dir::look(data_dir)?.with_context(|| format!("{dir} is of no node"))?;
    let kept = LastKnownGood::in_dir(data_dir).load(None);
    let (revision, site) = kept.with_context(|| format!("{dir} has no site that is whole"))?;
    let site =
        Site::from_json(&site).map_err(|_| anyhow::anyhow!("this version cannot read the site in it"))?;
    let mut site = unseal(site, &identity.secret)?;
    let mut keys = 0;
    for certificate in site.certificates.values_mut() {
        keys += usize::from(certificate.key_pem.is_some());
        (certificate.key_sealed, certificate.key_sha256) = (None, None);
    }
    write_private(file, site.to_canonical_json().as_bytes())?;
    Ok(Rebuilt { node: identity.name, revision: revision.0, keys })
}
