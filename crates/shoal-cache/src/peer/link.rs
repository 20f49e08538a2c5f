//! The way to the peers in a real cluster: the channels of shoal-cluster.

use std::io;
use std::sync::Arc;

use shoal_cluster::Peers;
use shoal_model::NodeId;

use crate::seam::{Changed, LinkFuture, PeerIo, PeerLink};

/// Peers over mutual TLS, by the channels of this node.
pub struct ClusterLink(pub Arc<Peers>);

impl PeerLink for ClusterLink {
    fn connect(&self, node: NodeId) -> LinkFuture<Box<dyn PeerIo>> {
        let peers = self.0.clone();
        Box::pin(async move {
            let stream = peers.connect_http1(node).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn PeerIo>)
        })
    }

    fn invalidate(&self, node: NodeId, changed: Changed) -> LinkFuture<()> {
        let peers = self.0.clone();
        Box::pin(async move {
            let mut client = peers.cache(node).map_err(io::Error::other)?;
            client.invalidate(changed.into_request()).await.map_err(io::Error::other)?;
            Ok(())
        })
    }
}
