//! Who this node is: resumed from disk, newly bootstrapped, or admitted by a cluster.

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use shoal_cluster::identity::{Identity, NodeKey};
use shoal_cluster::join::{Applicant, Joined, Token, join};
use shoal_model::NodeId;
use shoal_model::state::{Command, MemberRecord};

use crate::settings::RunSettings;

/// A data directory that belongs to this process alone, and the identity in it.
pub struct Boot {
    /// Held for as long as the process lives.
    pub lock: File,
    /// Who this node is.
    pub identity: Identity,
    /// The first entry of a new cluster, until it is committed.
    pub bootstrap: Option<Command>,
    /// Nodes to talk to first, when this node has just joined.
    pub peers: Vec<(NodeId, SocketAddr)>,
}

/// Opens the data directory and finds out who this node is; joins or bootstraps when it is new.
pub async fn boot(settings: &RunSettings) -> anyhow::Result<Boot> {
    let dir = &settings.data_dir;
    let lock = open_data_dir(dir)?;
    if let Some(identity) = Identity::load(dir)? {
        tracing::info!(node = %identity.node_id, name = identity.name, cluster = %identity.cluster_id, "resuming");
        return Ok(Boot { lock, bootstrap: read_pending(dir)?, identity, peers: Vec::new() });
    }
    if settings.join.is_empty() {
        let name = settings.name.clone().unwrap_or_else(host_name);
        return bootstrap(settings, &name, lock);
    }
    let Some(token) = &settings.token else {
        bail!("joining needs --token; create one on any node of the cluster with `shoal token create`");
    };
    let token: Token = token.parse()?;
    let key = NodeKey::load_or_generate(dir)?;
    // Several nodes of one machine have one host name.
    let own_name = || format!("{}-{}", host_name(), &key.public_key_sha256()[..4]);
    let applicant = Applicant {
        name: settings.name.clone().unwrap_or_else(own_name),
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        cluster_addr: settings.cluster_addr.to_string(),
        admin_addr: settings.admin_addr.to_string(),
    };
    let Joined { identity, peers } = join(&settings.join, &token, &applicant, &key).await?;
    identity.save(dir)?;
    tracing::info!(node = %identity.node_id, name = identity.name, cluster = %identity.cluster_id, "joined");
    Ok(Boot { lock, identity, bootstrap: None, peers })
}

/// The name of this machine, or `node`.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = name.split('.').next().unwrap_or_default().chars().filter(fits).take(40).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// Forgets the first entry once it is in the log.
pub fn bootstrapped(dir: &Path) {
    if let Err(error) = fs::remove_file(pending_path(dir)) {
        tracing::warn!(%error, "cannot remove the bootstrap file");
    }
}

fn bootstrap(settings: &RunSettings, name: &str, lock: File) -> anyhow::Result<Boot> {
    let dir = &settings.data_dir;
    let (identity, authority) = Identity::bootstrap(name)?;
    let command = Command::Bootstrap {
        cluster_id: identity.cluster_id,
        ca_certificate: identity.ca_der.to_vec(),
        ca_key_sealed: authority.seal_key(&identity.secret),
        node: member_record(settings, &identity)?,
    };
    let pending = pending_path(dir);
    fs::write(&pending, serde_json::to_vec(&command)?)
        .with_context(|| format!("cannot write {}", pending.display()))?;
    authority.issue_operator("admin")?.save(&dir.join("operator.json"))?;
    identity.save(dir)?;
    tracing::info!(cluster = %identity.cluster_id, name, "bootstrapped a new cluster");
    Ok(Boot { lock, identity, bootstrap: Some(command), peers: Vec::new() })
}

/// How the log describes this node.
pub fn member_record(settings: &RunSettings, identity: &Identity) -> anyhow::Result<MemberRecord> {
    Ok(MemberRecord {
        name: identity.name.clone(),
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        cluster_addr: settings.cluster_addr.to_string(),
        admin_addr: settings.admin_addr.to_string(),
        public_key_sha256: identity.public_key_sha256()?,
    })
}

fn open_data_dir(dir: &Path) -> anyhow::Result<File> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create the data directory {}", dir.display()))?;
    let path = dir.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot write to {}", dir.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another shoal process uses the data directory {}", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {}", path.display())),
    }
}

fn pending_path(dir: &Path) -> PathBuf {
    dir.join("bootstrap.json")
}

fn read_pending(dir: &Path) -> anyhow::Result<Option<Command>> {
    match fs::read(pending_path(dir)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("the bootstrap file is damaged")?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot read the bootstrap file"),
    }
}
