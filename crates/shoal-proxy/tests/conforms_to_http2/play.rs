//! Plays one case on a connection, and tells what came of it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::frames::{
    ACK, DATA, END_STREAM, GOAWAY, HEADERS, NO_ERROR, PING, RST_STREAM, SETTINGS, frame, get, greeting,
    status,
};

/// A rule, and what is done about it.
pub struct Case {
    /// Where the rule stands: a section of RFC 9113, or of RFC 7541 where `H` is before it.
    pub rule: &'static str,
    pub what: &'static str,
    pub steps: Vec<Step>,
    pub expected: Expected,
    /// Preface, SETTINGS and their acknowledgements come first.
    pub greets: bool,
}

pub enum Step {
    Send(Vec<u8>),
    /// Waits for something before it goes on.
    Await(Awaited),
}

#[derive(Clone, Copy, Debug)]
pub enum Awaited {
    SettingsAck,
    Data,
    /// The end of the response on a stream.
    End(u32),
}

#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// GOAWAY with one of these codes, and the end of the connection.
    Connection(&'static [u32]),
    /// RST_STREAM of a stream with this code, and another request is answered; or GOAWAY with the same code (§5.4.2).
    Stream(u32, u32),
    /// RST_STREAM with this code while others are as they were.
    Refused(u32, u32),
    /// A response on a stream.
    Status(u32, u16),
    /// The answer to [`ping`].
    Pong,
    /// The next DATA frame has so many bytes.
    Data(usize),
    /// Before anything else, our SETTINGS.
    Settings,
    /// The end of the connection, without an error.
    End,
    /// The end of the connection: nothing was agreed on that could be said on it.
    Hangup,
}

/// How bytes are sent.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    AtOnce,
    InPieces,
}

/// A case that sends `bytes` once both sides have greeted each other.
pub fn case(rule: &'static str, what: &'static str, bytes: Vec<u8>, expected: Expected) -> Case {
    steps(rule, what, vec![Step::Send(bytes)], expected)
}

pub fn steps(rule: &'static str, what: &'static str, steps: Vec<Step>, expected: Expected) -> Case {
    Case { rule, what, steps, expected, greets: true }
}

/// A PING that [`Expected::Pong`] waits for.
pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"conforms")
}

/// What came from the other side.
#[derive(Clone, Debug)]
enum Event {
    Status(u32, u16),
    Data(usize),
    Reset(u32, u32),
    Settings,
    SettingsAck,
    Pong,
    GoAway(u32),
    End(u32),
    Closed,
}

/// A connection as its downstream sees it.
struct Peer {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    manner: Manner,
    /// Events of a frame that was read.
    events: VecDeque<Event>,
}

/// Plays `case`; an error tells what came instead of what was expected.
pub async fn play(address: SocketAddr, case: &Case, manner: Manner) -> Result<(), String> {
    let (read, write) = TcpStream::connect(address).await.unwrap().into_split();
    let mut peer = Peer { read, write, manner, events: VecDeque::new() };
    let mut last = None;
    timeout(PATIENCE, peer.play(case, &mut last))
        .await
        .unwrap_or_else(|_| Err(format!("nothing after {last:?}")))
}

impl Peer {
    async fn play(&mut self, case: &Case, last: &mut Option<Event>) -> Result<(), String> {
        if case.greets {
            self.send(&greeting()).await;
            self.wait_for(Awaited::SettingsAck).await?;
            self.send(&frame(SETTINGS, ACK, 0, &[])).await;
        }
        for step in &case.steps {
            match step {
                Step::Send(bytes) => self.send(bytes).await,
                Step::Await(awaited) => self.wait_for(*awaited).await?,
            }
        }
        loop {
            let event = self.next().await;
            *last = Some(event.clone());
            match (case.expected, &event) {
                (Expected::Connection(codes), Event::GoAway(code)) if codes.contains(code) => {
                    return self.expect_end().await;
                }
                // What was under way may have been answered before.
                (Expected::Connection(_), Event::Status(..) | Event::Data(_) | Event::End(_)) => {}
                (Expected::Stream(_, expected), Event::GoAway(code)) if *code == expected => {
                    return self.expect_end().await;
                }
                (Expected::Stream(id, expected), Event::Reset(stream, code))
                    if (*stream, *code) == (id, expected) =>
                {
                    self.send(&get(1_001)).await;
                    return self.expect_status(1_001).await;
                }
                (Expected::Stream(..), Event::Status(..) | Event::Data(_) | Event::End(_)) => {}
                (Expected::Refused(id, expected), Event::Reset(stream, code))
                    if (*stream, *code) == (id, expected) =>
                {
                    return Ok(());
                }
                (Expected::Status(id, expected), Event::Status(stream, status))
                    if (*stream, *status) == (id, expected) =>
                {
                    return Ok(());
                }
                // What became of another stream.
                (Expected::Status(id, _), Event::Status(other, _) | Event::End(other)) if *other != id => {}
                (Expected::Status(id, _), Event::Reset(other, NO_ERROR)) if *other != id => {}
                (Expected::Status(..), Event::Data(_)) => {}
                (Expected::Pong, Event::Pong) | (Expected::Settings, Event::Settings) => return Ok(()),
                (Expected::Pong, Event::Status(..) | Event::Data(_) | Event::End(_)) => {}
                (Expected::Data(expected), Event::Data(length)) if *length == expected => return Ok(()),
                (Expected::End, Event::Closed) | (Expected::Hangup, Event::Closed) => return Ok(()),
                (Expected::End, Event::GoAway(NO_ERROR)) => {}
                // Nothing is wrong with it, but it says nothing.
                (Expected::Settings, _) => return Err(format!("{event:?}")),
                (Expected::Hangup, _) | (_, Event::Settings | Event::SettingsAck) => {}
                (Expected::Data(_), Event::Status(..)) => {}
                _ => return Err(format!("{event:?}")),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        let piece = match self.manner {
            Manner::AtOnce => bytes.len().max(1),
            Manner::InPieces => 5.max(bytes.len() / 1_000),
        };
        for piece in bytes.chunks(piece) {
            // The other side may have ended it already.
            if self.write.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn wait_for(&mut self, awaited: Awaited) -> Result<(), String> {
        loop {
            let event = self.next().await;
            match (awaited, &event) {
                (Awaited::SettingsAck, Event::SettingsAck) | (Awaited::Data, Event::Data(_)) => return Ok(()),
                (Awaited::End(stream), Event::End(ended)) if *ended == stream => return Ok(()),
                (_, Event::GoAway(_) | Event::Reset(..) | Event::Closed) => {
                    return Err(format!("{event:?} before {awaited:?}"));
                }
                _ => {}
            }
        }
    }

    async fn expect_end(&mut self) -> Result<(), String> {
        match self.next().await {
            Event::Closed => Ok(()),
            event => Err(format!("{event:?} after GOAWAY")),
        }
    }

    async fn expect_status(&mut self, stream: u32) -> Result<(), String> {
        loop {
            match self.next().await {
                Event::Status(answered, 200) if answered == stream => return Ok(()),
                event @ (Event::GoAway(_) | Event::Closed) => {
                    return Err(format!("{event:?} after RST_STREAM"));
                }
                _ => {}
            }
        }
    }

    /// The next thing that matters.
    async fn next(&mut self) -> Event {
        while self.events.is_empty() {
            let mut head = [0; 9];
            if self.read.read_exact(&mut head).await.is_err() {
                return Event::Closed;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if self.read.read_exact(&mut payload).await.is_err() {
                return Event::Closed;
            }
            self.note(&head, &payload);
        }
        self.events.pop_front().unwrap()
    }

    fn note(&mut self, head: &[u8; 9], payload: &[u8]) {
        let [.., kind, flags, a, b, c, d] = *head;
        let stream = u32::from_be_bytes([a, b, c, d]);
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            HEADERS => self.events.push_back(Event::Status(stream, status(payload))),
            DATA if !payload.is_empty() => self.events.push_back(Event::Data(payload.len())),
            RST_STREAM => self.events.push_back(Event::Reset(stream, code(0))),
            SETTINGS if flags & ACK == 0 => self.events.push_back(Event::Settings),
            SETTINGS => self.events.push_back(Event::SettingsAck),
            PING if flags & ACK != 0 && payload == b"conforms" => self.events.push_back(Event::Pong),
            GOAWAY => self.events.push_back(Event::GoAway(code(4))),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.events.push_back(Event::End(stream));
        }
    }
}
