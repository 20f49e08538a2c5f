//! The whole replicated state in one file, sealed under a passphrase: saved from any node, and the beginning of another
//! cluster.
//!
//! What is sealed is the cluster's secret, without which no private key in the state opens, and the state itself, as snapshots
//! of the log hold it.

mod inspect;
mod restore;
mod save;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use shoal_cluster::identity::{ClusterSecret, Passphrase, SealedFile};
use shoal_configlog::{Unreadable, read_state};
use shoal_model::ClusterId;
use shoal_model::state::ConfigState;

pub use inspect::{Contents, Inspection, inspect, inspect_bytes};
pub use restore::{Restored, restore};
pub use save::{MAX_SAVES, Saved, save};

/// The only format there is.
const FORMAT: u32 = 1;
/// Bytes of a file that is read, at most.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Bytes of the secret, in front of the state.
const SECRET_BYTES: usize = 32;

/// What a file says to whoever has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What is sealed in it has this form.
    pub format: u32,
    /// Unix milliseconds, by the clock of the node.
    pub saved_at_ms: u64,
    /// The node that was asked.
    pub saved_by: String,
    /// Of that node.
    pub version: String,
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// See [`ConfigState::cluster_epoch`].
    pub cluster_epoch: u64,
    /// The active revision.
    pub revision: u64,
    /// The newest entry of the log that is in it.
    pub index: u64,
    /// SHA-256 of the state, hex.
    pub state_sha256: String,
    /// A majority has confirmed that nothing newer was acknowledged before.
    pub newest: bool,
}

/// What is sealed in it.
struct Sealed {
    secret: ClusterSecret,
    state: ConfigState,
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let what = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .with_context(what)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(what)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        bail!("{} is larger than any snapshot ({MAX_FILE_BYTES} bytes)", path.display());
    }
    Ok(bytes)
}

fn unseal(file: &SealedFile<'_, About>, passphrase: &Passphrase) -> anyhow::Result<Sealed> {
    let format = file.about().format;
    if format != FORMAT {
        bail!("what is sealed in it has format {format}, and this version knows only format {FORMAT}");
    }
    let content = file.open(passphrase)?;
    let (secret, state) = content.split_at_checked(SECRET_BYTES).context("nothing is sealed in it")?;
    Ok(Sealed {
        secret: ClusterSecret::from_bytes(secret).context("it has no secret")?,
        // The parser's own message could quote what is secret.
        state: read_state(state).map_err(|error| match error {
            Unreadable::Unknown(why) => anyhow::anyhow!(why),
            Unreadable::Malformed(error) => {
                anyhow::anyhow!("this version cannot read the state in it (column {})", error.column())
            }
        })?,
    })
}
