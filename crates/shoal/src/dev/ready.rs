//! Waits until a node says that it serves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// From one question to the next.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns once `/readyz` of the node at `ops_addr` answers 200.
pub async fn wait(ops_addr: SocketAddr, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let asked = timeout_at(deadline, ask(ops_addr)).await;
        let why = match asked {
            Ok(Ok(StatusCode::OK)) => return Ok(()),
            Ok(Ok(status)) => format!("it answers {status}"),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it does not answer".to_owned(),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("http://{ops_addr}/readyz is not ready after {} s: {why}", timeout.as_secs());
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn ask(ops_addr: SocketAddr) -> anyhow::Result<StatusCode> {
    let stream = TcpStream::connect(ops_addr).await.context("cannot connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header("host", ops_addr.to_string()).body(Empty::<Bytes>::new())?;
    let connection = tokio::spawn(connection);
    let status = sender.send_request(request).await?.status();
    connection.abort();
    Ok(status)
}
