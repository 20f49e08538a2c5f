//! What a downstream connection is doing, and whether it has been doing it for too long.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shoal_model::view::Limits;
use shoal_policy::age::is_over_age;
use shoal_policy::gate::{FrameScan, Offence};

use super::h2_state::H2State;
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
    is_h2: Cell<bool>,
    h2: H2State,
    phase: Cell<u8>,
    since_ms: Cell<u64>,
    opened_ms: u64,
    in_flight: Cell<u32>,
    requests: Cell<u64>,
    /// When writing stopped to make progress; 0 = it does.
    blocked_ms: Cell<u64>,
    /// Since when the downstream has ended its side and was written nothing; 0 = it has not ended it.
    half_closed_ms: Cell<u64>,
    /// Some of what the downstream sends is not read.
    unread: Cell<bool>,
    /// Nobody works on it for the time being.
    resting: Cell<bool>,
    order: Cell<u8>,
    ordered_ms: Cell<u64>,
    /// The limit that led to the order, counted from 1; 0 = none did.
    limit: Cell<u8>,
    waker: RefCell<Option<Waker>>,
}

impl ConnectionState {
    pub(crate) fn new(clock: Arc<Clock>) -> Rc<Self> {
        let now_ms = clock.now_ms();
        Rc::new(Self {
            clock,
            is_h2: Cell::new(false),
            h2: H2State::new(now_ms),
            phase: Cell::new(IDLE),
            since_ms: Cell::new(now_ms),
            opened_ms: now_ms,
            in_flight: Cell::new(0),
            requests: Cell::new(0),
            blocked_ms: Cell::new(0),
            half_closed_ms: Cell::new(0),
            unread: Cell::new(false),
            resting: Cell::new(false),
            order: Cell::new(Order::GoOn as u8),
            ordered_ms: Cell::new(0),
            limit: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    pub(crate) fn set_h2(&self) {
        self.is_h2.set(true);
    }

    pub(crate) fn is_h2(&self) -> bool {
        self.is_h2.get()
    }

    /// What is known of it on HTTP/2.
    pub(super) fn h2(&self) -> &H2State {
        &self.h2
    }

    /// Wakes the connection's task when there is an order.
    pub(super) fn register(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Bytes of HTTP/2 came in; answers how many of them the codec may see.
    pub(super) fn received(&self, bytes: &[u8], frames: &mut FrameScan) -> usize {
        let now_ms = self.clock.now_ms();
        self.h2.heard_ms.set(now_ms);
        let Err(stopped) = frames.feed(bytes, now_ms) else { return bytes.len() };
        self.h2.last_stream.set(frames.last_stream());
        self.h2.end_with_error(stopped.offence.code());
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
        self.phase.get() == IDLE
    }

    /// How long nothing has come on HTTP/2, ms.
    pub(super) fn quiet_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.h2.heard_ms.get())
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.phase.get() == TUNNEL
    }

    /// What comes from now on is not HTTP.
    pub(crate) fn set_tunnel(&self) {
        self.enter(TUNNEL);
    }

    pub(super) fn write_blocked(&self, blocked: bool) {
        match (blocked, self.blocked_ms.get()) {
            (true, 0) => self.blocked_ms.set(self.clock.now_ms()),
            (false, since) if since != 0 => self.blocked_ms.set(0),
            _ => {}
        }
    }

    /// The downstream has ended its side while an answer is owed to it. [`HALF_CLOSED_MS`] without a byte of that are
    /// taken to mean that nobody is there any more.
    pub(super) fn half_closed(&self) {
        self.half_closed_ms.set(self.clock.now_ms());
    }

    /// Bytes went out to a downstream that may have ended its side.
    pub(super) fn wrote(&self) {
        if self.half_closed_ms.get() != 0 {
            self.half_closed();
        }
    }

    pub(crate) fn request_began(&self) {
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.enter(BUSY);
    }

    pub(crate) fn request_ended(&self) {
        let left = self.in_flight.get().saturating_sub(1);
        self.in_flight.set(left);
        if left == 0 {
            self.enter(IDLE);
            // A goodbye may have waited for that.
            if self.is_h2() && self.order() > Order::GoOn {
                self.wake();
            }
        }
    }

    /// Requests that are not answered yet.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Says whether some of what the downstream sends is not read: the connection is to end.
    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.set(unread);
    }

    /// Something of it was not read, or still may come.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// Closing with bytes unread would reset the connection, and the answer might be lost: what still comes is to be
    /// read first. Like any connection that is to end, it may take [`GRACE_MS`] for that. On HTTP/2 something always may
    /// come: whoever reads a body says so.
    pub(super) fn begins_to_linger(&self) -> bool {
        let lingers = self.is_h2() || self.unread.get();
        if lingers {
            self.enter(IDLE);
            self.give(Order::Finish);
            // It may have been told so long ago.
            self.ordered_ms.set(self.clock.now_ms());
        }
        lingers
    }

    /// Nothing has come and nothing is owed for so long that it does without what working takes until something comes.
    pub(super) fn may_rest(&self) -> bool {
        self.phase.get() == IDLE
            && self.clock.now_ms().saturating_sub(self.since_ms.get()) >= REST_AFTER_MS
            && !self.is_h2()
            && self.order() < Order::Finish
            && self.blocked_ms.get() == 0
            && self.half_closed_ms.get() == 0
            && !self.unread.get()
    }

    /// Since when nothing is asked and nothing owed; `None` = something is, or it is about to end.
    pub(crate) fn idle_since_ms(&self) -> Option<u64> {
        let is_idle = self.phase.get() == IDLE && self.order() < Order::Finish && self.blocked_ms.get() == 0;
        is_idle.then(|| self.since_ms.get())
    }

    pub(super) fn set_resting(&self, resting: bool) {
        self.resting.set(resting);
    }

    /// Requests so far, the present one included.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub(crate) fn order(&self) -> Order {
        match self.order.get() {
            0 => Order::GoOn,
            1 => Order::Retire,
            2 => Order::Finish,
            _ => Order::Abort,
        }
    }

    /// HTTP/2 can say at any time that no more shall come (GOAWAY). It is not said before the first answer, or a downstream
    /// that connects anew would never get one.
    pub(super) fn may_say_goodbye(&self) -> bool {
        self.is_h2() && self.requests() > self.in_flight.get().into()
    }

    /// Ready when nothing more shall be taken. Wakes the one task that waits for orders.
    pub(super) fn poll_finishing(&self, cx: &Context<'_>) -> Poll<()> {
        self.register(cx.waker());
        if self.order() >= Order::Finish { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Gives an order; a milder one than it has already is ignored.
    pub(crate) fn give(&self, order: Order) {
        if order > self.order() {
            self.order.set(order as u8);
            self.ordered_ms.set(self.clock.now_ms());
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
        self.limit.set(limit as u8 + 1);
    }

    /// The limit that has ended the connection.
    pub(super) fn limit(&self) -> Option<Limit> {
        self.limit.get().checked_sub(1).and_then(Limit::numbered)
    }

    /// Wakes the connection's task, if it is another than that of `waker`.
    pub(super) fn wake_from(&self, waker: &Waker) {
        if let Some(known) = &*self.waker.borrow()
            && !known.will_wake(waker)
        {
            known.wake_by_ref();
        }
    }

    /// Wakes the connection's task, which registers only once.
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Looks whether it has overstayed.
    pub(crate) fn review(&self, now_ms: u64, limits: &Limits) {
        let for_ms = |since_ms: u64| now_ms.saturating_sub(since_ms);
        let ms = |limit: std::time::Duration| limit.as_millis() as u64;
        let blocked_ms = self.blocked_ms.get();
        if blocked_ms != 0 && for_ms(blocked_ms) > ms(limits.write_idle_timeout) {
            return self.end(Limit::WriteIdleTimeout, Order::Abort);
        }
        let half_closed_ms = self.half_closed_ms.get();
        if half_closed_ms != 0 && blocked_ms == 0 && for_ms(half_closed_ms) > HALF_CLOSED_MS {
            return self.give(Order::Abort);
        }
        let in_phase_ms = for_ms(self.since_ms.get());
        match self.phase.get() {
            HEAD if in_phase_ms > ms(limits.header_timeout) => {
                return self.end(Limit::HeaderTimeout, Order::Abort);
            }
            // What is written already may still be on its way out.
            IDLE if blocked_ms != 0 => {}
            IDLE if self.order() == Order::Finish
                && for_ms(self.ordered_ms.get().max(self.since_ms.get())) > GRACE_MS =>
            {
                return self.give(Order::Abort);
            }
            IDLE if self.requests() == 0 && in_phase_ms > ms(limits.header_timeout) => {
                self.end(Limit::HeaderTimeout, Order::Finish)
            }
            IDLE if in_phase_ms > ms(limits.keepalive_timeout) => {
                self.end(Limit::KeepaliveTimeout, Order::Finish);
            }
            IDLE if !self.resting.get() && self.may_rest() => self.wake(),
            _ => {}
        }
        if is_over_age(self.opened_ms, now_ms, limits.max_connection_age) {
            self.end(Limit::MaxConnectionAge, Order::Retire);
        }
    }

    fn enter(&self, phase: u8) {
        self.phase.set(phase);
        self.since_ms.set(self.clock.now_ms());
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
        let on_its_way = |state: &ConnectionState| {
            finishing(state);
            state.write_blocked(true);
        };
        check("told to finish, with an answer on its way", &on_its_way, 29, Order::Finish, None);
        let limit = Some(Limit::WriteIdleTimeout);
        check("told to finish, with an answer on its way", &on_its_way, 31, Order::Abort, limit);
        let half = |state: &ConnectionState| {
            state.request_began();
            state.half_closed();
        };
        check("half closed", &half, 4, Order::GoOn, None);
        check("half closed", &half, 6, Order::Abort, None);
    }
}
