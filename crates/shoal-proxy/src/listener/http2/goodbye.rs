//! How a connection on HTTP/2 ends without a lost request (RFC 9113 §6.8).
//!
//! The codec's own way is a GOAWAY that names no stream, a PING behind it, and with the answer to that the GOAWAY that names
//! the last stream. That is too early for downstreams who answer the PING first, and then send what they had queued before
//! they heard of the end: it would come after the last stream, and be lost to whoever does not ask again. So that way begins
//! only when the downstream has answered a PING before, and what it had queued has come and is answered.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;

use super::keep_alive::KeepAlive;
use crate::deadline::Deadline;
use crate::listener::Connection;
use crate::listener::coalesced::Coalesced;
use crate::listener::last_words::{ANY_STREAM, goaway};

/// How long requests under way, which may be followed by others that wait for their turn, put off the last stream.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far it is.
pub(super) enum Goodbye {
    Unsaid,
    /// It is said, and a PING follows it.
    Said,
    /// The downstream has heard it. What is under way ends first, until then.
    Heard(Deadline),
    /// The codec knows.
    Over,
}

/// Who is left, and how.
pub(super) struct Leaving<'a, T> {
    pub(super) connection: &'a Connection,
    pub(super) io: &'a Coalesced<T>,
    pub(super) keep_alive: Option<&'a mut KeepAlive>,
    /// Nothing is waited for that takes its time.
    pub(super) hurries: bool,
}

/// What the codec has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing for now.
    Wait,
    /// It has something to send.
    Send,
    /// It is its turn.
    Finish,
}

impl Goodbye {
    /// Goes as far as it can now, and wakes the task when it can go on.
    pub(super) fn go_on<T: AsyncWrite + Unpin>(
        &mut self,
        leaving: Leaving<'_, T>,
        cx: &mut Context<'_>,
    ) -> Step {
        let Leaving { connection, io, keep_alive, hurries } = leaving;
        match self {
            Self::Unsaid => {
                let Some(keep_alive) = keep_alive else { return self.finish() };
                if keep_alive.is_asked() {
                    // It says nothing anyway, or not for long.
                    return self.finish();
                }
                if !io.interject(&goaway(ANY_STREAM, 0)) {
                    return Step::Wait;
                }
                if !keep_alive.ask() {
                    return self.finish();
                }
                *self = Self::Said;
                Step::Send
            }
            Self::Said => {
                if keep_alive.is_some_and(|keep_alive| keep_alive.is_asked()) {
                    return Step::Wait;
                }
                *self = Self::Heard(connection.worker.deadlines.arm(PATIENCE));
                self.go_on(Leaving { connection, io, keep_alive: None, hurries }, cx)
            }
            Self::Heard(until) => {
                let is_under_way = connection.state.in_flight() > 0;
                let waits = is_under_way && !hurries && until.poll_passed(cx) == Poll::Pending;
                if waits { Step::Wait } else { self.finish() }
            }
            Self::Over => Step::Wait,
        }
    }

    fn finish(&mut self) -> Step {
        *self = Self::Over;
        Step::Finish
    }
}
