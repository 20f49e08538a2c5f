//! Copies of other nodes on their way in, as a node that is slow or sends many writes them to the wire.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::{Town, play};

const MIB: usize = 1 << 20;
/// Of what may be read at once, in MiB.
const ROOM: usize = 8;

/// A connection of the second node to the first.
fn connect(town: &Town) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(town.nodes[0].cache.clone().serve_peer(far, town.nodes[1].id, Duration::MAX));
    near
}

/// Begins to put a copy of so many MiB.
async fn begin(town: &Town, mib: usize) -> DuplexStream {
    let mut io = connect(town);
    let head = format!("PUT /shoal/replica HTTP/1.1\r\nhost: n1\r\ncontent-length: {}\r\n\r\n", mib * MIB);
    io.write_all(head.as_bytes()).await.unwrap();
    io
}

async fn send(io: &mut DuplexStream, mib: usize) {
    io.write_all(&vec![b'x'; mib * MIB]).await.unwrap();
}

/// The status of the answer. What is no object is a bad request, once it was read.
async fn status(io: &mut DuplexStream) -> u16 {
    let mut answer = [0; 12];
    io.read_exact(&mut answer).await.unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn what_there_is_no_room_for_is_refused_until_there_is() {
    play(async || {
        let town = Town::new(2);
        let refused = || town.sum(|figures| figures.replicas_refused);
        let mut first = begin(&town, ROOM - 1).await;
        send(&mut first, 1).await;

        let mut second = begin(&town, 2).await;
        send(&mut second, 2).await;
        assert_eq!((status(&mut second).await, refused()), (503, 1));
        let mut small = begin(&town, 1).await;
        send(&mut small, 1).await;
        assert_eq!((status(&mut small).await, refused()), (400, 1));

        send(&mut first, ROOM - 2).await;
        assert_eq!(status(&mut first).await, 400);
        let mut large = begin(&town, 2 * ROOM).await;
        send(&mut large, 2 * ROOM).await;
        assert_eq!((status(&mut large).await, refused()), (400, 1), "one alone may be larger");
        let mut too_large = begin(&town, 33).await;
        assert_eq!(status(&mut too_large).await, 413);
    });
}

#[test]
fn who_sends_nothing_holds_no_room_for_long() {
    play(async || {
        let town = Town::new(2);
        tokio::time::pause();
        let mut stuck = begin(&town, ROOM).await;
        assert_eq!(status(&mut stuck).await, 408);
        let mut next = begin(&town, ROOM).await;
        send(&mut next, ROOM).await;
        assert_eq!(status(&mut next).await, 400);
        assert_eq!(town.sum(|figures| figures.replicas_refused), 0);
    });
}
