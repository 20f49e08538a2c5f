//! A channel that takes itself out of the cache at its first transport error: a follower that restarted must not starve
//! behind a dead connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};

use shoal_model::NodeId;
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tower_service::Service;

use super::{Lane, Shared};

/// A gRPC channel to one node.
#[derive(Clone)]
pub struct PeerChannel {
    channel: Channel,
    place: Place,
}

#[derive(Clone)]
struct Place {
    peers: Weak<Shared>,
    node: NodeId,
    lane: Lane,
    serial: u64,
}

impl PeerChannel {
    pub(super) fn new(channel: Channel, peers: Weak<Shared>, node: NodeId, lane: Lane, serial: u64) -> Self {
        Self { channel, place: Place { peers, node, lane, serial } }
    }

    #[cfg(test)]
    pub(super) fn serial(&self) -> u64 {
        self.place.serial
    }
}

impl Place {
    fn discard(&self) {
        if let Some(peers) = self.peers.upgrade() {
            peers.discard(self.node, self.lane, self.serial);
        }
    }
}

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let polled = ready!(self.channel.poll_ready(cx));
        if polled.is_err() {
            self.place.discard();
        }
        Poll::Ready(polled)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.channel.call(request);
        let place = self.place.clone();
        Box::pin(async move {
            let answer = answer.await;
            if answer.is_err() {
                place.discard();
            }
            answer
        })
    }
}
