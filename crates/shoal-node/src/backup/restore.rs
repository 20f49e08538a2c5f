//! Restoring: a new cluster of one node, with a new id, a new authority and a new secret. It has the revisions of the old one
//! under higher numbers, and the record of its changes; no node, token or operator of the old one can enter.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use shoal_cluster::identity::{
    ClusterSecret, Identity, NodeKey, Passphrase, Purpose, SealedFile, not_after, serial,
};
use shoal_configlog::{Whose, found_with};
use shoal_model::site::KeyForm;
use shoal_model::state::{Asker, Founding, MemberRecord, OperatorRecord, RESTORE, check_member_name};
use shoal_model::{ClusterId, Role, Site};

use super::{About, Sealed, read_file, unseal};
use crate::boot::host_name;
use crate::data_dir::{self, OPERATOR};
use crate::node::now_ms;
use crate::sealed_site::open_key;

/// Where the node is said to be until it runs: it then says so itself.
const NOWHERE_YET: &str = "127.0.0.1:7400";

/// A cluster that is ready to be started.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// Its id.
    pub cluster_id: ClusterId,
    /// The id of the one whose state it has.
    pub restored_from: ClusterId,
    /// Its active revision.
    pub revision: u64,
    /// The name of its only node.
    pub node: String,
    /// Nodes of the old one, which cannot take part.
    pub left_behind: Vec<String>,
    /// Old revisions that cannot be carried over, by their numbers in this cluster, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<u64, String>,
}

/// Founds a cluster in `data_dir`, which must be of no node, with what is sealed in the file at `path`. The node is called
/// `name`, or as its machine.
///
/// # Errors
/// Why not. Unless the directory was written to, nothing has changed.
pub fn restore(
    path: &Path,
    passphrase: &Passphrase,
    data_dir: &Path,
    name: Option<&str>,
) -> anyhow::Result<Restored> {
    let file = read_file(path)?;
    let sealed = SealedFile::<About>::read(&file).with_context(|| path.display().to_string())?;
    let index = sealed.about().index + 1;
    let Sealed { secret, state } = unseal(&sealed, passphrase).with_context(|| path.display().to_string())?;
    let name = name.map_or_else(host_name, str::to_owned);
    check_member_name(&name).context("--name")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if data_dir::look(data_dir)?.is_some() || NodeKey::is_kept_in(data_dir)? {
        bail!("{} is of a node: give --data-dir an empty directory", data_dir.display());
    }
    let _lock = data_dir::lock(data_dir)?;

    let (identity, authority) = Identity::bootstrap(&name)?;
    let node = MemberRecord {
        name: name.clone(),
        region: "default".to_owned(),
        zone: "default".to_owned(),
        cluster_addr: NOWHERE_YET.to_owned(),
        admin_addr: String::new(),
        public_key_sha256: identity.public_key_sha256()?,
        purge_lease_ms: 0,
    };
    let operator = authority.issue_operator("admin")?;
    let (Some(serial), Some(ends_at)) = (serial(&operator.cert_der), not_after(&operator.cert_der)) else {
        bail!("the certificate of the first operator cannot be read");
    };
    let record = OperatorRecord {
        name: operator.name.clone(),
        role: Role::Admin.to_string(),
        given_at_ms: now_ms(),
        ends_at_ms: u64::try_from(ends_at).unwrap_or_default() * 1000,
    };
    let founding = Founding {
        cluster_id: identity.cluster_id,
        ca_certificate: identity.ca_der.to_vec(),
        ca_key_sealed: authority.seal_key(&identity.secret),
        node,
        operator: (serial, record),
        asker: Asker {
            by: "local".to_owned(),
            from: "shoal snapshot restore".to_owned(),
            node: identity.node_id,
            call: RESTORE.to_owned(),
            at_ms: now_ms(),
            ..Asker::default()
        },
    };
    let restored_from = state.cluster_id;
    let left_behind = state.nodes.values().map(|node| node.name.clone()).collect();
    let mut keys = Keys { old: &secret, new: &identity.secret, sealed_anew: BTreeMap::new() };
    let (state, left_out) = state.refounded(founding, index, |site| keys.carry(site))?;
    let whose = Whose { node_id: identity.node_id, cluster_id: identity.cluster_id };
    found_with(data_dir, whose, NOWHERE_YET, (index, &state))?;
    operator.save(&data_dir.join(OPERATOR))?;
    // Without it the directory is of nobody; it is written last.
    Identity { cluster_epoch: state.cluster_epoch, ..identity.clone() }.save(data_dir)?;
    Ok(Restored {
        cluster_id: identity.cluster_id,
        restored_from,
        revision: state.revisions.active().0.0,
        node: name,
        left_behind,
        left_out: left_out.into_iter().map(|(revision, why)| (revision.0, format!("{why:#}"))).collect(),
    })
}

/// Private keys on their way from one secret to another.
struct Keys<'a> {
    old: &'a ClusterSecret,
    new: &'a ClusterSecret,
    /// By certificate and the sealed key of old: what was the same in two revisions still is.
    sealed_anew: BTreeMap<(String, String), String>,
}

impl Keys<'_> {
    fn carry(&mut self, site: &str) -> anyhow::Result<String> {
        let site = Site::from_json(site);
        let mut site = site.map_err(|_| anyhow::anyhow!("this version cannot read a site in it"))?;
        for (name, certificate) in &mut site.certificates {
            if certificate.key_form() == KeyForm::Sealed {
                let before = certificate.key_sealed.clone().unwrap_or_default();
                let place = (name.clone(), before);
                let after = match self.sealed_anew.get(&place) {
                    Some(after) => after.clone(),
                    None => {
                        let key = open_key(name, certificate, self.old)?;
                        let key = self.new.seal(Purpose::SiteKeys, name.as_bytes(), key.as_bytes());
                        let after = STANDARD.encode(key);
                        self.sealed_anew.insert(place, after.clone());
                        after
                    }
                };
                certificate.key_sealed = Some(after);
            }
        }
        Ok(site.to_canonical_json())
    }
}
