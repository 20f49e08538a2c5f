//! Saving: the node that is asked seals what it has, so that nothing leaves it in clear.

use std::pin::Pin;
use std::sync::Arc;

use shoal_cluster::identity::{Passphrase, seal_file, sha256_hex};
use shoal_configlog::ProposeError;
use shoal_proto::admin::{SaveSnapshotRequest, SaveSnapshotResponse};
use tokio_stream::Stream;
use tonic::{Code, Status};

use super::{About, FORMAT};
use crate::admin::failure::{Exit, check_log, propose, with_exit};
use crate::admin::newest_base;
use crate::node::{Node, now_ms};

/// Files that are made at once.
pub const MAX_SAVES: usize = 1;
/// Bytes of one message.
const PART_BYTES: usize = 256 << 10;

/// A file, in parts.
pub type Saved = Pin<Box<dyn Stream<Item = Result<SaveSnapshotResponse, Status>> + Send>>;

/// Who takes all there is is on the record before anything leaves, and the record is in what leaves. It goes with an entry that
/// changes nothing. Where nobody can write, saving is all the more what there is to do.
async fn put_on_record(node: &Node) -> Result<(), Status> {
    match node.put_on_record("the whole state, sealed".to_owned()).await {
        Err(error @ ProposeError::OutOfSpace { .. }) => {
            tracing::warn!(%error, "that a snapshot is saved is not on the record");
            Ok(())
        }
        written => written.map_err(propose),
    }
}

/// Seals the state as it is; where a majority can be asked, everything that was acknowledged before is in it, and who
/// has asked for it.
pub async fn save(node: &Arc<Node>, request: SaveSnapshotRequest, caller: &str) -> Result<Saved, Status> {
    let passphrase = Passphrase::new(&request.passphrase)
        .map_err(|error| with_exit(Code::InvalidArgument, Exit::Local, error.to_string()))?;
    check_log(&node.log)?;
    let place = Arc::clone(&node.saving).try_acquire_owned();
    let place = place.map_err(|_| {
        with_exit(Code::ResourceExhausted, Exit::Remote, "this node is saving a snapshot for somebody else")
    })?;
    let (_, newest) = newest_base(node).await?;
    if newest {
        put_on_record(node).await?;
    }
    let failed = |error: &dyn std::fmt::Display| Status::internal(format!("cannot seal the state: {error}"));
    let (index, state) = node.log.state_document().await.map_err(|error| failed(&error))?;
    let (cluster_epoch, revision) =
        node.log.with_state(|state| (state.cluster_epoch, state.revisions.active().0.0));
    let about = About {
        format: FORMAT,
        saved_at_ms: now_ms(),
        saved_by: node.identity.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: node.identity.cluster_id,
        cluster_epoch,
        revision,
        index,
        state_sha256: sha256_hex(&state),
        newest,
    };
    let secret = node.identity.secret.clone();
    let sealing = tokio::task::spawn_blocking(move || {
        let content = [secret.expose(), &state].concat();
        drop(state);
        seal_file(&about, content, &passphrase)
    });
    let file = sealing.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    tracing::info!(by = caller, index, bytes = file.len(), "a snapshot was saved");
    let parts = file.chunks(PART_BYTES).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let last = parts.len();
    let parts = parts.into_iter().zip(1..).map(move |(data, number)| {
        let _taken = &place;
        Ok(SaveSnapshotResponse { data, last: number == last })
    });
    Ok(Box::pin(tokio_stream::iter(parts)))
}
