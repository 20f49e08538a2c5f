//! What a downstream connection is doing, and whether it has been doing it for too long.
//!
//! Kept in atomics, because the codec wants its IO to be `Send`; only the connection's own worker touches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use futures_util::task::AtomicWaker;
use shoal_model::view::Limits;
use shoal_policy::age::is_over_age;
use shoal_policy::gate::{ErrorCode, FrameScan, Offence};

use crate::clock::Clock;
use crate::metrics::Limit;

/// How long a connection that was asked to end may still say nothing, ms.
const GRACE_MS: u64 = 5_000;
/// How long a downstream that has ended its side may be answered nothing, ms: it may want the answer, or be gone.
const HALF_CLOSED_MS: u64 = 5_000;

/// How long an HTTP/1 connection is idle before it is put to rest, ms.
const REST_AFTER_MS: u64 = 1_000;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const TUNNEL: u8 = 3;

/// What a connection was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    GoOn = 0,
    /// The next answer is the last one, and says so; whoever asks nothing is left alone.
    Retire = 1,
    /// Finish what is under way, take nothing new.
    Finish = 2,
    /// Close at once.
    Abort = 3,
}

/// One downstream connection.
pub(crate) struct ConnectionState {
    clock: Arc<Clock>,
    is_h2: AtomicBool,
    phase: AtomicU8,
    since_ms: AtomicU64,
    opened_ms: u64,
    in_flight: AtomicU32,
    requests: AtomicU64,
    /// When writing stopped to make progress; 0 = it does.
    blocked_ms: AtomicU64,
    /// When bytes came last, on HTTP/2.
    heard_ms: AtomicU64,
    /// Since when the downstream has ended its side and was written nothing; 0 = it has not ended it.
    half_closed_ms: AtomicU64,
    /// The error of HTTP/2 that the connection ends with, counted from 1 (0 = none), and the highest stream of it.
    error: AtomicU8,
    last_stream: AtomicU32,
    /// Some of what the downstream sends is not read.
    unread: AtomicBool,
    /// Nobody works on it for the time being.
    resting: AtomicBool,
    order: AtomicU8,
    ordered_ms: AtomicU64,
    /// The limit that led to the order, counted from 1; 0 = none did.
    limit: AtomicU8,
    waker: AtomicWaker,
}

impl ConnectionState {
    pub(crate) fn new(clock: Arc<Clock>) -> Arc<Self> {
        let now_ms = clock.now_ms();
        Arc::new(Self {
            clock,
            is_h2: AtomicBool::new(false),
            phase: AtomicU8::new(IDLE),
            since_ms: AtomicU64::new(now_ms),
            opened_ms: now_ms,
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            blocked_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(now_ms),
            half_closed_ms: AtomicU64::new(0),
            error: AtomicU8::new(0),
            last_stream: AtomicU32::new(0),
            unread: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            order: AtomicU8::new(Order::GoOn as u8),
            ordered_ms: AtomicU64::new(0),
            limit: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        })
    }

    pub(crate) fn set_h2(&self) {
        self.is_h2.store(true, Relaxed);
    }

    pub(crate) fn is_h2(&self) -> bool {
        self.is_h2.load(Relaxed)
    }

    /// Wakes the connection's task when there is an order.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Bytes of HTTP/2 came in; answers how many of them the codec may see.
    pub(super) fn received(&self, bytes: &[u8], frames: &mut FrameScan) -> usize {
        let now_ms = self.clock.now_ms();
        self.heard_ms.store(now_ms, Relaxed);
        let Err(stopped) = frames.feed(bytes, now_ms) else { return bytes.len() };
        self.last_stream.store(frames.last_stream(), Relaxed);
        self.end_with_error(stopped.offence.code());
        match stopped.offence {
            Offence::Flood(flood) => {
                self.end(flood.into(), Order::Abort);
                // The codec shall not work for a flood.
                0
            }
            Offence::Breach(_) => {
                self.give(Order::Abort);
                stopped.good
            }
        }
    }

    /// Some of a head of HTTP/1 is there.
    pub(super) fn head_began(&self) {
        if self.is_idle() {
            self.enter(HEAD);
        }
    }

    /// Nothing is asked, and nothing owed.
    pub(super) fn is_idle(&self) -> bool {
        self.phase.load(Relaxed) == IDLE
    }

    /// The connection ends, or has ended, with this error of HTTP/2.
    pub(super) fn end_with_error(&self, code: ErrorCode) {
        self.error.store(code as u8 + 1, Relaxed);
    }

    /// The error of HTTP/2 that ends the connection.
    pub(super) fn error(&self) -> Option<ErrorCode> {
        let place = self.error.load(Relaxed).checked_sub(1)?;
        ErrorCode::ALL.get(usize::from(place)).copied()
    }

    /// The highest stream that was looked at when a frame ended the connection.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream.load(Relaxed)
    }

    /// How long nothing has come on HTTP/2, ms.
    pub(super) fn quiet_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.heard_ms.load(Relaxed))
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.phase.load(Relaxed) == TUNNEL
    }

    /// What comes from now on is not HTTP.
    pub(crate) fn set_tunnel(&self) {
        self.enter(TUNNEL);
    }

    pub(super) fn write_blocked(&self, blocked: bool) {
        match (blocked, self.blocked_ms.load(Relaxed)) {
            (true, 0) => self.blocked_ms.store(self.clock.now_ms(), Relaxed),
            (false, since) if since != 0 => self.blocked_ms.store(0, Relaxed),
            _ => {}
        }
    }

    /// The downstream has ended its side while an answer is owed to it. [`HALF_CLOSED_MS`] without a byte of that are
    /// taken to mean that nobody is there any more.
    pub(super) fn half_closed(&self) {
        self.half_closed_ms.store(self.clock.now_ms(), Relaxed);
    }

    /// Bytes went out to a downstream that may have ended its side.
    pub(super) fn wrote(&self) {
        if self.half_closed_ms.load(Relaxed) != 0 {
            self.half_closed();
        }
    }

    pub(crate) fn request_began(&self) {
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
        self.in_flight.store(self.in_flight.load(Relaxed) + 1, Relaxed);
        self.enter(BUSY);
    }

    pub(crate) fn request_ended(&self) {
        let left = self.in_flight.load(Relaxed).saturating_sub(1);
        self.in_flight.store(left, Relaxed);
        if left == 0 {
            self.enter(IDLE);
        }
    }

    /// Says whether some of what the downstream sends is not read: the connection is to end.
    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Relaxed);
    }

    /// Closing with bytes unread would reset the connection, and the answer might be lost: what still comes is to be
    /// read first. Like any connection that is to end, it may take [`GRACE_MS`] for that.
    pub(super) fn begins_to_linger(&self) -> bool {
        let lingers = if self.is_h2() { self.error().is_some() } else { self.unread.load(Relaxed) };
        if lingers {
            self.enter(IDLE);
            self.give(Order::Finish);
        }
        lingers
    }

    /// Nothing has come and nothing is owed for so long that it does without what working takes until something comes.
    pub(super) fn may_rest(&self) -> bool {
        self.phase.load(Relaxed) == IDLE
            && self.clock.now_ms().saturating_sub(self.since_ms.load(Relaxed)) >= REST_AFTER_MS
            && !self.is_h2()
            && self.order() < Order::Finish
            && self.blocked_ms.load(Relaxed) == 0
            && self.half_closed_ms.load(Relaxed) == 0
            && !self.unread.load(Relaxed)
    }

    /// Since when nothing is asked and nothing owed; `None` = something is, or it is about to end.
    pub(crate) fn idle_since_ms(&self) -> Option<u64> {
        let is_idle = self.phase.load(Relaxed) == IDLE && self.order() < Order::Finish;
        is_idle.then(|| self.since_ms.load(Relaxed))
    }

    pub(super) fn set_resting(&self, resting: bool) {
        self.resting.store(resting, Relaxed);
    }

    /// Requests so far, the present one included.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn order(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::GoOn,
            1 => Order::Retire,
            2 => Order::Finish,
            _ => Order::Abort,
        }
    }

    /// HTTP/2 can say at any time that no more shall come (GOAWAY). It is not said before the first answer, or a downstream
    /// that connects anew would never get one.
    pub(super) fn may_say_goodbye(&self) -> bool {
        self.is_h2() && self.requests() > self.in_flight.load(Relaxed).into()
    }

    /// Ready when nothing more shall be taken. Wakes the one task that waits for orders.
    pub(super) fn poll_finishing(&self, cx: &std::task::Context<'_>) -> std::task::Poll<()> {
        self.waker.register(cx.waker());
        if self.order() >= Order::Finish { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }

    /// Gives an order; a milder one than it has already is ignored.
    pub(crate) fn give(&self, order: Order) {
        if order > self.order() {
            self.order.store(order as u8, Relaxed);
            self.ordered_ms.store(self.clock.now_ms(), Relaxed);
            self.wake();
        }
    }

    /// Gives an order because of `limit`.
    pub(crate) fn end(&self, limit: Limit, order: Order) {
        if order > self.order() {
            self.reached(limit);
            self.give(order);
        }
    }

    /// The connection ends, or will soon, because of `limit`.
    pub(crate) fn reached(&self, limit: Limit) {
        self.limit.store(limit as u8 + 1, Relaxed);
    }

    /// The limit that has ended the connection.
    pub(super) fn limit(&self) -> Option<Limit> {
        self.limit.load(Relaxed).checked_sub(1).and_then(Limit::numbered)
    }

    /// Wakes the connection's task, which registers only once.
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.register(&waker);
        }
    }

    /// Looks whether it has overstayed.
    pub(crate) fn review(&self, now_ms: u64, limits: &Limits) {
        let for_ms = |since_ms: u64| now_ms.saturating_sub(since_ms);
        let ms = |limit: std::time::Duration| limit.as_millis() as u64;
        let blocked_ms = self.blocked_ms.load(Relaxed);
        if blocked_ms != 0 && for_ms(blocked_ms) > ms(limits.write_idle_timeout) {
            return self.end(Limit::WriteIdleTimeout, Order::Abort);
        }
        let half_closed_ms = self.half_closed_ms.load(Relaxed);
        if half_closed_ms != 0 && blocked_ms == 0 && for_ms(half_closed_ms) > HALF_CLOSED_MS {
            return self.give(Order::Abort);
        }
        let in_phase_ms = for_ms(self.since_ms.load(Relaxed));
        match self.phase.load(Relaxed) {
            HEAD if in_phase_ms > ms(limits.header_timeout) => {
                return self.end(Limit::HeaderTimeout, Order::Abort);
            }
            IDLE if self.order() == Order::Finish && for_ms(self.ordered_ms.load(Relaxed)) > GRACE_MS => {
                return self.give(Order::Abort);
            }
            IDLE if self.requests() == 0 && in_phase_ms > ms(limits.header_timeout) => {
                self.end(Limit::HeaderTimeout, Order::Finish)
            }
            IDLE if in_phase_ms > ms(limits.keepalive_timeout) => {
                self.end(Limit::KeepaliveTimeout, Order::Finish);
            }
            IDLE if !self.resting.load(Relaxed) && self.may_rest() => self.wake(),
            _ => {}
        }
        if is_over_age(self.opened_ms, now_ms, limits.max_connection_age) {
            self.end(Limit::MaxConnectionAge, Order::Retire);
        }
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Relaxed);
        self.since_ms.store(self.clock.now_ms(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overstaying_is_noticed() {
        let limits = Limits::default();
        // What happens to a new connection, and the order it has after so many seconds of it.
        // And because of which limit.
        let check = |what: &str,
                     happen: &dyn Fn(&ConnectionState),
                     seconds: u64,
                     expected: Order,
                     limit: Option<Limit>| {
            let state = ConnectionState::new(Arc::new(Clock::new()));
            happen(&state);
            state.review(seconds * 1000, &limits);
            assert_eq!((state.order(), state.limit()), (expected, limit), "{what} for {seconds} s");
        };
        check("nothing sent", &|_| {}, 9, Order::GoOn, None);
        check("nothing sent", &|_| {}, 11, Order::Finish, Some(Limit::HeaderTimeout));
        check("half a head", &|state| state.head_began(), 9, Order::GoOn, None);
        check("half a head", &|state| state.head_began(), 11, Order::Abort, Some(Limit::HeaderTimeout));
        check("a request", &|state| state.request_began(), 1000, Order::GoOn, None);
        check(
            "a request",
            &|state| state.request_began(),
            3700,
            Order::Retire,
            Some(Limit::MaxConnectionAge),
        );
        let served = |state: &ConnectionState| {
            state.request_began();
            state.request_ended();
        };
        check("idle", &served, 70, Order::GoOn, None);
        check("idle", &served, 80, Order::Finish, Some(Limit::KeepaliveTimeout));
        check("blocked", &|state| state.write_blocked(true), 31, Order::Abort, Some(Limit::WriteIdleTimeout));
        let unblocked = |state: &ConnectionState| {
            state.request_began();
            state.write_blocked(true);
            state.write_blocked(false);
        };
        check("blocked for a while", &unblocked, 31, Order::GoOn, None);
        let finishing = |state: &ConnectionState| {
            served(state);
            state.give(Order::Finish);
        };
        check("told to finish", &finishing, 4, Order::Finish, None);
        check("told to finish", &finishing, 6, Order::Abort, None);
        let half = |state: &ConnectionState| {
            state.request_began();
            state.half_closed();
        };
        check("half closed", &half, 4, Order::GoOn, None);
        check("half closed", &half, 6, Order::Abort, None);
    }
}
