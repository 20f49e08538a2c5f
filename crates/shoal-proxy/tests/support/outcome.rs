//! What comes of frames of HTTP/2 that are sent on a connection of their own.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{GOAWAY, HEADERS, RST_STREAM, greeting, status};
use super::{PATIENCE, Stage};

/// The first thing that says what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    Closed,
}

/// Sends `bytes` after a preface and settings; answers what comes of it.
pub async fn send(stage: &Stage, bytes: &[u8]) -> Outcome {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let bytes = [&greeting()[..], bytes].concat();
    let writing = tokio::spawn(async move {
        // The other side may close before everything was sent.
        let _ = write.write_all(&bytes).await;
        write
    });
    let outcome = tokio::time::timeout(PATIENCE, outcome(&mut read)).await;
    drop(writing);
    outcome.expect("nothing came of it")
}

/// What comes next.
pub async fn outcome(read: &mut (impl AsyncReadExt + Unpin)) -> Outcome {
    loop {
        let Some((kind, payload)) = next(read).await else { return Outcome::Closed };
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            HEADERS => return Outcome::Status(status(&payload)),
            RST_STREAM => return Outcome::Reset(code(0)),
            GOAWAY => return Outcome::GoAway(code(4)),
            _ => {}
        }
    }
}

/// The next frame: its kind and payload; `None` = the connection has ended.
pub async fn next(read: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    read.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}
