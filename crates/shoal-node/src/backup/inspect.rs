//! What is in a file, without what is secret in it.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use shoal_cluster::identity::{Passphrase, SealedFile};
use shoal_model::Site;

use super::{About, Sealed, read_file, unseal};

/// A file that is whole.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// What it says to everybody.
    pub about: About,
    /// Its size, bytes.
    pub bytes: usize,
    /// What is sealed in it; `None` = no passphrase was given.
    pub contents: Option<Contents>,
}

/// What is sealed in a file.
#[derive(Clone, Debug, Serialize)]
pub struct Contents {
    /// Names of nodes.
    pub nodes: Vec<String>,
    /// Revisions whose content is there.
    pub revisions: usize,
    /// Names of the active revision's listeners.
    pub listeners: Vec<String>,
    /// Its routes.
    pub routes: Vec<String>,
    /// Its upstreams.
    pub upstreams: Vec<String>,
    /// Its certificates; their keys are there as well.
    pub certificates: Vec<String>,
    /// Records of who has changed what.
    pub audit_records: usize,
    /// Names that had certificates of operators.
    pub operators: Vec<String>,
}

/// Reads the file at `path`, and what is sealed in it if there is a `passphrase`.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn inspect(path: &Path, passphrase: Option<&Passphrase>) -> anyhow::Result<Inspection> {
    inspect_bytes(&read_file(path)?, passphrase).with_context(|| path.display().to_string())
}

/// The same of a file that was read already.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn inspect_bytes(file: &[u8], passphrase: Option<&Passphrase>) -> anyhow::Result<Inspection> {
    let sealed = SealedFile::<About>::read(file)?;
    let contents =
        passphrase.map(|passphrase| contents(&unseal(&sealed, passphrase)?, sealed.about().saved_at_ms));
    let contents = contents.transpose()?;
    Ok(Inspection { about: sealed.about().clone(), bytes: file.len(), contents })
}

fn contents(sealed: &Sealed, sealed_at_ms: u64) -> anyhow::Result<Contents> {
    fn names<V>(map: &std::collections::BTreeMap<String, V>) -> Vec<String> {
        map.keys().cloned().collect()
    }
    let state = &sealed.state;
    let (_, site) = state.revisions.active();
    let site =
        Site::from_json(&site).map_err(|_| anyhow::anyhow!("this version cannot read the site in it"))?;
    let history = state.revisions.history();
    let mut operators: Vec<String> =
        state.operators.given(sealed_at_ms).map(|(_, record)| record.name.clone()).collect();
    operators.sort();
    operators.dedup();
    Ok(Contents {
        nodes: state.nodes.values().map(|node| node.name.clone()).collect(),
        revisions: history.filter(|(revision, _)| state.revisions.content(*revision).is_some()).count(),
        listeners: names(&site.listeners),
        routes: names(&site.routes),
        upstreams: names(&site.upstreams),
        certificates: names(&site.certificates),
        audit_records: state.audit.changes.newest_first().count() + state.audit.purges.newest_first().count(),
        operators,
    })
}
