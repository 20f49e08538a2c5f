//! Uploads that one of both sides breaks off, or answers before their end: half of one never looks whole, and nobody else is
//! the worse for it.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::Response;
use socket2::SockRef;
use support::frames::{CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, POST, RST_STREAM};
use support::frames::{block, frame, greeting};
use support::{Answer, Downstream, PATIENCE, Stage, ok, serve_raw, site};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// More than sockets hold.
const LARGE: usize = 16 << 20;

/// An endpoint that answers each GET, and of anything else takes so many bytes of the body, says `answer`, and resets the
/// connection.
async fn resetting(taken: usize, answer: &'static str) -> SocketAddr {
    serve_raw(Arc::default(), move |stream, _| async move {
        let mut stream = Downstream::new(stream);
        while stream.read_head().await.unwrap_or_default().starts_with("GET") {
            stream.send(ok("well")).await;
        }
        stream.read_exactly(taken).await;
        _ = stream.stream.write_all(answer.as_bytes()).await;
        SockRef::from(&stream.stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await
}

/// Uploads much, and takes the answer meanwhile, after which nothing more comes.
async fn upload(stage: &Stage) -> Answer {
    let (read, mut write) = TcpStream::connect(stage.address("web")).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
        // It may be over before all of it is sent.
        _ = write.write_all(&[head.into_bytes(), vec![b'x'; LARGE]].concat()).await;
        write
    });
    let mut downstream = Downstream::new(tokio::io::join(read, tokio::io::sink()));
    let answer = downstream.answer().await;
    assert!(!answer.complete || downstream.is_closed().await, "{answer:?}");
    drop(sending);
    answer
}

#[tokio::test]
async fn an_endpoint_that_resets_within_an_upload_harms_nobody_else() {
    let refused = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig";
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    // How much the endpoint takes and what it says, and the status and body that come of it.
    for (taken, said, status, body) in [
        (0, "", 502, "upstream_reset"),
        (1 << 20, "", 502, "upstream_reset"),
        (0, refused, 413, "big"),
        (1 << 20, refused, 413, "big"),
        (0, half, 200, "half"),
        (1 << 20, half, 200, "half"),
    ] {
        let what = format!("{status} after {taken} bytes");
        let endpoint = resetting(taken, said).await;
        let stage = Stage::start(&site(&[endpoint], "", ", passive: { consecutive_errors: 0 }"));
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(stage.connect().await);
        }
        for _ in 0..4 {
            let answer = upload(&stage).await;
            assert_eq!((answer.status, answer.complete), (status, status != 200), "{what}: {answer:?}");
            assert!(answer.text().contains(body), "{what}: {answer:?}");
            for other in &mut others {
                other.send(GET).await;
                assert_eq!(other.answer().await.text(), "well", "{what}");
            }
        }
        support::wait_until("the end of them", || stage.metric("shoal_requests_in_flight") == 0).await;
    }
}

/// What an endpoint has seen of an upload.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Its first part: `half`.
    Half,
    /// Its end, by which it is whole or not.
    End { is_whole: bool },
}

/// An endpoint on HTTP/1.1 that tells what it sees of uploads in chunks.
async fn http1_endpoint(seen: UnboundedSender<Seen>) -> SocketAddr {
    serve_raw(Arc::default(), move |stream, _| {
        let seen = seen.clone();
        async move {
            let mut stream = Downstream::new(stream);
            stream.read_until(b"half\r\n").await.unwrap();
            _ = seen.send(Seen::Half);
            let is_whole = stream.read_until(b"0\r\n\r\n").await.is_some();
            _ = seen.send(Seen::End { is_whole });
            _ = stream.stream.write_all(ok("thanks").as_bytes()).await;
        }
    })
    .await
}

/// When an endpoint answers an upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    AtItsEnd,
    /// Before it has all of it, and reads on.
    Early,
    /// It begins before it has all of it, and ends after.
    Throughout,
}

/// The same on HTTP/2.
async fn h2_endpoint(seen: UnboundedSender<Seen>, answers: Answers) -> SocketAddr {
    serve_raw(Arc::default(), move |stream, _| {
        let seen = seen.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    if body.is_end_stream() {
                        let mut sending = respond.send_response(Response::new(()), false).unwrap();
                        return sending.send_data(Bytes::from_static(b"well"), true).unwrap();
                    }
                    assert_eq!(body.data().await.unwrap().unwrap(), "half");
                    _ = body.flow_control().release_capacity(4);
                    _ = seen.send(Seen::Half);
                    if answers == Answers::AtItsEnd {
                        _ = seen.send(Seen::End { is_whole: read_to_end(&mut body).await });
                    }
                    let Ok(mut sending) = respond.send_response(Response::new(()), false) else { return };
                    _ = sending.send_data(Bytes::from_static(b"thanks"), answers != Answers::Throughout);
                    if answers != Answers::AtItsEnd {
                        _ = seen.send(Seen::End { is_whole: read_to_end(&mut body).await });
                    }
                    if answers == Answers::Throughout {
                        sending.send_data(Bytes::new(), true).unwrap();
                    }
                });
            }
        }
    })
    .await
}

/// Whether the body has come to its end.
async fn read_to_end(body: &mut RecvStream) -> bool {
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return false };
        _ = body.flow_control().release_capacity(data.len());
    }
    true
}

async fn next(seen: &mut UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(PATIENCE, seen.recv()).await.expect("the endpoint sees nothing").unwrap()
}

#[tokio::test]
async fn only_its_end_is_the_end_of_an_upload() {
    let reset = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    let end = || frame(DATA, END_STREAM, 1, b"");
    for is_h2 in [false, true] {
        for (last, is_whole) in [(end(), true), (reset(NO_ERROR), false), (reset(CANCEL), false)] {
            let (seen, mut told) = unbounded_channel();
            let (endpoint, protocol) = match is_h2 {
                false => (http1_endpoint(seen).await, ""),
                true => (h2_endpoint(seen, Answers::AtItsEnd).await, ", protocol: h2c"),
            };
            let stage = Stage::start(&site(&[endpoint], "", protocol));
            let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
            let begun = [frame(HEADERS, END_HEADERS, 1, &block(&POST)), frame(DATA, 0, 1, b"half")];
            stream.write_all(&[greeting(), begun.concat()].concat()).await.unwrap();
            assert_eq!(next(&mut told).await, Seen::Half);
            stream.write_all(&last).await.unwrap();
            assert_eq!(next(&mut told).await, Seen::End { is_whole }, "HTTP/2: {is_h2}, {last:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_answered_early_is_not_told_to_be_whole() {
    for begun in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let (seen, mut told) = unbounded_channel();
        let endpoint = h2_endpoint(seen, Answers::Early).await;
        let stage = Stage::start(&site(&[endpoint], "", ", protocol: h2c"));
        let mut downstream = stage.connect().await;
        downstream.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{begun}")).await;
        assert_eq!(next(&mut told).await, Seen::Half);
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "thanks", true));
        assert!(downstream.is_closed().await, "what follows is no request");
        assert_eq!(next(&mut told).await, Seen::End { is_whole: false }, "{begun:?}");
    }
}

#[tokio::test]
async fn an_upload_that_ends_within_its_answer_leaves_its_connection_as_it_was() {
    let (seen, mut told) = unbounded_channel();
    let endpoint = h2_endpoint(seen, Answers::Throughout).await;
    let stage = Stage::start(&site(&[endpoint], "", ", protocol: h2c"));
    let mut downstream = stage.connect().await;
    for _ in 0..3 {
        downstream
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .await;
        assert_eq!(next(&mut told).await, Seen::Half);
        let head = downstream.read_head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        downstream.send("4\r\nrest\r\n0\r\n\r\n").await;
        let (body, _, is_complete) = downstream.read_body(&head).await;
        assert_eq!((&body[..], is_complete), (&b"thanks"[..], true));
        assert_eq!(next(&mut told).await, Seen::End { is_whole: true });
        downstream.send(GET).await;
        assert_eq!(downstream.answer().await.text(), "well");
    }
}
