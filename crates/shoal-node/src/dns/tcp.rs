//! Questions on connections (RFC 7766): each with its length before it, one answered after the other.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_policy::dns::Carrier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Responder;
use crate::accept::Accepting;

/// How long a connection may take for its next question, and for reading an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions of one connection.
const MAX_QUESTIONS: usize = 1000;
/// Bytes of a question.
const MAX_QUESTION: u16 = 4096;
/// An address may have this share of all connections.
const SHARE_PER_ADDRESS: usize = 8;

/// The connections there are.
pub(super) struct Doors {
    max_connections: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Doors {
    pub(super) fn new(max_connections: usize) -> Self {
        Self { max_connections, by_address: Mutex::default() }
    }

    /// `None` = there are too many, of all or of this address.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Inside> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = by_address.values().sum();
        let per_address = self.max_connections.div_ceil(SHARE_PER_ADDRESS);
        let own = by_address.get(&address).copied().unwrap_or_default();
        if all >= self.max_connections || own >= per_address {
            return None;
        }
        by_address.insert(address, own + 1);
        Some(Inside { doors: self.clone(), address })
    }
}

/// A place for a connection, given back when it is dropped.
struct Inside {
    doors: Arc<Doors>,
    address: IpAddr,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut by_address = self.doors.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Answers for as long as it is polled.
pub(super) async fn serve(socket: TcpListener, responder: Arc<Responder>, doors: Arc<Doors>) {
    let socket = Accepting::on(socket, "the DNS address");
    loop {
        let (stream, source) = socket.next().await;
        let Some(inside) = doors.enter(source.ip().to_canonical()) else {
            responder.figures.connections_refused.fetch_add(1, Relaxed);
            continue;
        };
        let responder = responder.clone();
        tokio::spawn(async move {
            let _inside = inside;
            let _counted = Counted::new(&responder);
            // How it ends is the other side's affair.
            _ = converse(stream, &responder).await;
        });
    }
}

/// A connection among the figures, whatever ends it.
struct Counted<'a>(&'a Responder);

impl<'a> Counted<'a> {
    fn new(responder: &'a Responder) -> Self {
        responder.figures.connections.fetch_add(1, Relaxed);
        Self(responder)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.figures.connections.fetch_sub(1, Relaxed);
    }
}

async fn converse(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    let mut question = Vec::new();
    for _ in 0..MAX_QUESTIONS {
        tokio::time::timeout(IDLE_TIMEOUT, read(&mut stream, &mut question)).await??;
        responder.figures.questions_on_connections.fetch_add(1, Relaxed);
        let Some(answer) = responder.answer(&question, Carrier::Tcp) else { break };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let whole = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(IDLE_TIMEOUT, stream.write_all(&whole)).await??;
    }
    Ok(())
}

async fn read(stream: &mut TcpStream, question: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    if length > MAX_QUESTION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    question.resize(usize::from(length), 0);
    stream.read_exact(question).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_places() {
        let doors = Arc::new(Doors::new(16));
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let own: Vec<_> = (0..5).filter_map(|_| doors.enter(address(1))).collect();
        assert_eq!(own.len(), 2, "an eighth");
        let others: Vec<_> = (2..40).filter_map(|n| doors.enter(address(n))).collect();
        assert_eq!(others.len(), 14);
        assert!(doors.enter(address(99)).is_none());
        drop(own);
        assert!(doors.enter(address(99)).is_some());
        drop(others);
        assert!(doors.by_address.lock().unwrap().is_empty());
    }
}
