//! PING on a quiet connection of HTTP/2, to learn whether anybody is still there (RFC 9113 §6.7).

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};

use crate::deadline::{Deadline, Deadlines};
use crate::listener::ConnectionState;

/// How long nothing may come before somebody is asked.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks whoever says nothing.
pub(super) struct KeepAlive {
    pings: PingPong,
    is_asked: bool,
    deadline: Deadline,
}

impl KeepAlive {
    pub(super) fn new(pings: PingPong, deadlines: &Rc<Deadlines>) -> Self {
        Self { pings, is_asked: false, deadline: deadlines.arm(INTERVAL) }
    }

    /// Asks now, so that the answer comes after whatever the downstream had under way; `false` = it cannot be asked beside
    /// what it was asked before.
    pub(super) fn ask(&mut self) -> bool {
        let asks = !self.is_asked && self.pings.send_ping(Ping::opaque()).is_ok();
        if asks {
            self.is_asked = true;
            self.deadline.reset(TIMEOUT);
        }
        asks
    }

    /// An answer is still to come.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Ready when nobody has answered. Wakes the task when there is something to ask, or to be heard.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, state: &ConnectionState) -> Poll<()> {
        if self.is_asked && self.pings.poll_pong(cx).is_ready() {
            self.is_asked = false;
            self.deadline.reset(INTERVAL);
        }
        while self.deadline.poll_passed(cx).is_ready() {
            match next(self.is_asked, Duration::from_millis(state.quiet_ms())) {
                Next::Gone => return Poll::Ready(()),
                Next::Wait(left) => self.deadline.reset(left),
                Next::Ask => {
                    // None can be sent when the connection is about to end by itself.
                    self.is_asked = self.pings.send_ping(Ping::opaque()).is_ok();
                    self.deadline.reset(if self.is_asked { TIMEOUT } else { INTERVAL });
                }
            }
        }
        Poll::Pending
    }
}

/// What is due when the time is up.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Somebody was heard in the meantime.
    Wait(Duration),
    Ask,
    Gone,
}

fn next(is_asked: bool, quiet: Duration) -> Next {
    match INTERVAL.checked_sub(quiet) {
        _ if is_asked => Next::Gone,
        Some(left) if !left.is_zero() => Next::Wait(left),
        _ => Next::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_says_nothing_is_asked_once() {
        let check = |is_asked: bool, quiet_s: u64, expected: Next| {
            assert_eq!(next(is_asked, Duration::from_secs(quiet_s)), expected, "{is_asked} {quiet_s}");
        };
        check(false, 0, Next::Wait(INTERVAL));
        check(false, 15, Next::Wait(Duration::from_secs(5)));
        check(false, 20, Next::Ask);
        check(false, 30, Next::Ask);
        // Other frames are no answer.
        check(true, 0, Next::Gone);
        check(true, 40, Next::Gone);
    }
}
