//! One message to a collector, on a connection of its own.

use std::io;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST};
use axum::http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shoal_model::view::CollectorView;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of an answer that are read: it says what was refused, and nobody looks at it.
const MAX_ANSWER: usize = 64 << 10;

/// A collector did not take what it was sent.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// It cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// It does not speak HTTP as it should, or goes away.
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    /// It refused.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// Its address makes no request.
    #[error("cannot ask: {0}")]
    Request(#[from] axum::http::Error),
}

/// Sends `text`, which is JSON, and waits until it was taken.
pub async fn post(collector: &CollectorView, text: Vec<u8>) -> Result<(), PostError> {
    timeout(collector.timeout, exchange(collector, text)).await.unwrap_or(Err(PostError::Timeout))
}

async fn exchange(collector: &CollectorView, text: Vec<u8>) -> Result<(), PostError> {
    let host = match collector.host.contains(':') {
        true => format!("[{}]:{}", collector.host, collector.port),
        false => format!("{}:{}", collector.host, collector.port),
    };
    let request = Request::post(&*collector.path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Body::from(text))?;
    let stream = TcpStream::connect((&*collector.host, collector.port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Read, so that the collector sees a proper end; too long or cut short is all the same.
        _ = to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await;
        if status.is_success() { Ok(()) } else { Err(PostError::Refused(status)) }
    };
    tokio::pin!(asking);
    tokio::select! {
        answered = &mut asking => answered,
        ended = connection => {
            ended?;
            asking.await
        }
    }
}
