//! In-memory pipes between the nodes of a story.

use std::collections::{HashMap, HashSet};
use std::io::Result;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shoal_cache::{Cache, Changed, LinkFuture, PeerIo, PeerLink};
use shoal_model::NodeId;
use shoal_proto::cache::cache_service_server::CacheService;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Which node answers under which id, and which are down.
#[derive(Default)]
pub struct Wires {
    pub caches: Mutex<HashMap<NodeId, Arc<Cache>>>,
    pub down: Mutex<HashSet<NodeId>>,
    /// Nodes that take connections and say nothing, with their ends of those.
    pub silent: Mutex<HashMap<NodeId, Vec<DuplexStream>>>,
    /// Connections that each node serves.
    pub served: Mutex<HashMap<NodeId, Vec<AbortHandle>>>,
    /// What the next connection waits for.
    pub held: Mutex<Option<Arc<Semaphore>>>,
    /// Bytes that nodes have had from those they asked.
    pub carried: Arc<AtomicUsize>,
}

/// The end of a pipe that belongs to who asks.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        self.1.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Wires {
    fn reach(&self, node: NodeId) -> Result<Arc<Cache>> {
        let is_down = self.down.lock().unwrap().contains(&node);
        let found = self.caches.lock().unwrap().get(&node).cloned();
        found.filter(|_| !is_down).ok_or_else(|| std::io::ErrorKind::ConnectionRefused.into())
    }
}

/// What a node reaches the others by, as a peer with this id.
pub struct Link(pub Arc<Wires>, pub NodeId);

impl PeerLink for Link {
    fn connect(&self, node: NodeId) -> LinkFuture<Box<dyn PeerIo>> {
        let (wires, caller) = (self.0.clone(), self.1);
        Box::pin(async move {
            let held = wires.held.lock().unwrap().take();
            if let Some(gate) = held {
                gate.acquire().await.map_err(std::io::Error::other)?.forget();
            }
            let cache = wires.reach(node)?;
            let (near, far) = tokio::io::duplex(16 * 1024);
            let near = Counted(near, wires.carried.clone());
            if let Some(held) = wires.silent.lock().unwrap().get_mut(&node) {
                held.push(far);
                return Ok(Box::new(near) as Box<dyn PeerIo>);
            }
            let serving = tokio::spawn(cache.serve_peer(far, caller, Duration::MAX)).abort_handle();
            wires.served.lock().unwrap().entry(node).or_default().push(serving);
            Ok(Box::new(near) as Box<dyn PeerIo>)
        })
    }

    fn invalidate(&self, node: NodeId, changed: Changed) -> LinkFuture<()> {
        let wires = self.0.clone();
        Box::pin(async move {
            let request = tonic::Request::new(changed.into_request());
            wires.reach(node)?.service().invalidate(request).await.map_err(std::io::Error::other)?;
            Ok(())
        })
    }
}
