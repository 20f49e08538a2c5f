//! The PROXY header in front of a connection: who may send one, and waiting for it.

use std::io;
use std::net::SocketAddr;

use shoal_model::view::ProxyProtocolView;
use shoal_policy::tcp::proxy_header::{self, Ends, MAX_HEADER};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Reads the header that `peer` must send, and not a byte more. `Ok(None)` = it speaks for itself; `Err` = it may not
/// connect.
pub(super) async fn receive(
    stream: &mut TcpStream,
    peer: SocketAddr,
    view: &ProxyProtocolView,
) -> io::Result<Option<Ends>> {
    let address = peer.ip().to_canonical();
    if !view.trusted.iter().any(|network| network.contains(&address)) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    timeout(view.timeout, read(stream)).await?
}

async fn read(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let mut head = Vec::new();
    let mut part = [0; MAX_HEADER];
    loop {
        // Looked at before it is taken: what follows the header is not ours.
        let room = MAX_HEADER - head.len();
        let count = stream.peek(&mut part[..room]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend_from_slice(&part[..count]);
        let header = proxy_header::read(&head).map_err(|_| io::ErrorKind::InvalidData)?;
        let taken = header.map_or(count, |header| header.length.saturating_sub(before));
        stream.read_exact(&mut part[..taken]).await?;
        if let Some(header) = header {
            return Ok(header.ends);
        }
    }
}
