//! Two processes with one identity: a data directory was copied, and both copies run. Votes would be given twice. The later
//! one stands back, and the other says so for as long as it hears it.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use shoal_cluster::channel::Peers;
use shoal_cluster::gossip::{Gossip, Twin};
use shoal_cluster::identity::{Identity, write_private};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::data_dir::ADDRESS;
use crate::settings::RunSettings;

/// What to do about it.
const ADVICE: &str = "its data directory was copied: stop the copy, and let that machine join with an empty \
                      --data-dir and a new --token";

/// Refuses to start where this node has moved, as it seems, and still answers where it was.
pub async fn refuse_beside_itself(settings: &RunSettings, identity: &Identity) -> anyhow::Result<()> {
    // Without it, or with one that cannot be read, the gossip finds out.
    let last = fs::read_to_string(settings.data_dir.join(ADDRESS)).ok();
    let last = last.and_then(|text| text.trim().parse::<SocketAddr>().ok());
    if let Some(last) = last.filter(|last| *last != settings.cluster_addr) {
        let peers = Peers::new(identity)?;
        peers.set_address(identity.node_id, last);
        // Only a process with this node's key can answer to its name.
        if peers.connect_http1(identity.node_id).await.is_ok() {
            bail!("{}", describe(identity, last));
        }
        tracing::info!(from = %last, to = %settings.cluster_addr, "this node has moved");
    }
    Ok(())
}

/// Writes down where this node is reached.
pub fn remember(settings: &RunSettings) {
    let address = settings.cluster_addr.to_string();
    if let Err(error) = write_private(&settings.data_dir.join(ADDRESS), address.as_bytes()) {
        tracing::warn!(%error, "a copy of this data directory would not notice this process at its start");
    }
}

fn describe(identity: &Identity, address: SocketAddr) -> String {
    format!(
        "node {:?} ({}) runs already, at {address}: two processes have one identity; {ADVICE}",
        identity.name, identity.node_id
    )
}

/// What `status` says of it; empty = there is none.
pub fn warning(gossip: &Gossip, identity: &Identity) -> String {
    let twin = *gossip.twin().borrow();
    twin.map_or_else(String::new, |twin| describe(identity, twin.address))
}

/// Says so whenever one appears, and cancels `stand_back` when that one was first.
pub async fn notice(
    mut twins: watch::Receiver<Option<Twin>>,
    identity: Arc<Identity>,
    stand_back: CancellationToken,
) {
    while twins.changed().await.is_ok() {
        let twin = *twins.borrow_and_update();
        match twin {
            Some(Twin { address, was_first }) => {
                tracing::error!(node = %identity.node_id, twin = %address, "{}", describe(&identity, address));
                if was_first {
                    stand_back.cancel();
                }
            }
            None => {
                tracing::info!(node = %identity.node_id, "the other process with this identity is not heard any more")
            }
        }
    }
    std::future::pending().await
}
