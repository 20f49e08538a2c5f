//! A connection on HTTP/2: its codec, and the orders that it is given.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Handshake};
use shoal_model::view::Limits;
use shoal_policy::gate::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::goodbye::{Goodbye, Leaving, Step};
use super::keep_alive::KeepAlive;
use super::stream;
use crate::listener::coalesced::{Coalesced, Witness};
use crate::listener::unheard::FAREWELL;
use crate::listener::{Connection, Order, last_words};
use crate::metrics::Limit;

const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const MAX_FRAME: u32 = 16 << 10;
const MAX_HEADER_LIST: u32 = 32 << 10;
/// Unsent response bytes kept per stream.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that were reset before they were accepted (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset for what the downstream did wrong (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 256;
/// Streams that ended before their requests did, as those whose uploads are refused: what still comes of them is passed
/// over, and for how long.
const MAX_REMEMBERED_RESETS: usize = 1024;
const RESETS_REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// Serves the connection to its end.
pub(in crate::listener) async fn serve<T>(
    connection: &Rc<Connection>,
    io: Coalesced<T>,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin,
{
    connection.state.set_h2();
    let ended = run(connection, &io).await;
    if ended.is_ok()
        && let Some(code) = connection.state.h2().error()
    {
        io.add(&last_words::goaway(connection.state.h2().last_stream.get(), code.number()));
        // Whoever does not listen goes without.
        let mut io = io;
        _ = timeout(FAREWELL, io.shutdown()).await;
    }
    ended
}

/// The error with which the codec has ended a connection by itself.
pub(in crate::listener) fn error_of(error: &h2::Error) -> Option<ErrorCode> {
    if error.is_library() { ErrorCode::numbered(error.reason()?.into()) } else { None }
}

/// The limit because of which the codec gave up: it counts some floods itself.
pub(in crate::listener) fn limit_of(error: &h2::Error) -> Option<Limit> {
    (error_of(error) == Some(ErrorCode::EnhanceYourCalm)).then_some(Limit::H2Codec)
}

/// Runs the codec and obeys the orders that the connection is given. Whenever the codec waits, what it has put off is
/// written; when that fails, the connection is over.
async fn run<T>(connection: &Rc<Connection>, io: &Coalesced<T>) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin,
{
    let state = &connection.state;
    let greeting = builder(&connection.settings.view.limits).handshake(io.clone());
    let mut codec = Codec::Greeting { greeting: Box::new(greeting), finishes: false };
    let mut registered = false;
    poll_fn(|cx| {
        // A task has one waker for life.
        if !std::mem::replace(&mut registered, true) {
            state.register(cx.waker());
        }
        io.begin_turn();
        loop {
            let polled = codec.poll(cx, connection);
            for _ in 0..state.h2().take_refused_heads() {
                connection.worker.metrics.reach(Limit::MaxHeaderBytes);
            }
            if let Poll::Ready(ended) = polled {
                // The last words, if they can be said at once.
                _ = io.poll_written(cx);
                return Poll::Ready(ended);
            }
            if let Poll::Ready(Err(_)) = io.poll_written(cx) {
                return Poll::Ready(Ok(()));
            }
            let hurries = match state.order() {
                Order::Retire if state.may_say_goodbye() => false,
                Order::GoOn | Order::Retire => return Poll::Pending,
                Order::Finish => true,
                Order::Abort => return Poll::Ready(Ok(())),
            };
            if !codec.leave(cx, connection, io, hurries) {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.h2_max_streams)
        .enable_connect_protocol()
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST.min(limits.max_header_bytes.try_into().unwrap_or(u32::MAX)))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
        .max_concurrent_reset_streams(MAX_REMEMBERED_RESETS)
        .reset_stream_duration(RESETS_REMEMBERED_FOR);
    builder
}

/// The codec of one connection.
enum Codec<T>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin,
{
    Greeting {
        greeting: Box<Handshake<Coalesced<T>, Bytes>>,
        /// The connection shall end when it has begun.
        finishes: bool,
    },
    Open(Box<Open<T>>),
}

struct Open<T>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin,
{
    codec: h2::server::Connection<Coalesced<T>, Bytes>,
    /// `None` = nobody is there any more.
    keep_alive: Option<KeepAlive>,
    goodbye: Goodbye,
}

impl<T> Codec<T>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin,
{
    /// Nothing new shall be taken; `true` = there is something to send for that.
    fn leave(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        io: &Coalesced<T>,
        hurries: bool,
    ) -> bool {
        match self {
            Self::Greeting { finishes, .. } => {
                *finishes = true;
                false
            }
            Self::Open(open) => {
                let keep_alive = open.keep_alive.as_mut();
                let leaving = Leaving { connection, io, keep_alive, hurries };
                let step = open.goodbye.go_on(leaving, cx);
                if step == Step::Finish {
                    open.codec.graceful_shutdown();
                }
                step != Step::Wait
            }
        }
    }

    /// Ready at the end of the connection.
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Rc<Connection>) -> Poll<Result<(), h2::Error>> {
        if let Self::Greeting { greeting, finishes } = self {
            let mut codec = ready!(Pin::new(greeting).poll(cx))?;
            if *finishes {
                codec.graceful_shutdown();
            }
            let pings = codec.ping_pong();
            let keep_alive = pings.map(|pings| KeepAlive::new(pings, &connection.worker.deadlines));
            let goodbye = if *finishes { Goodbye::Over } else { Goodbye::Unsaid };
            *self = Self::Open(Box::new(Open { codec, keep_alive, goodbye }));
        }
        match self {
            Self::Greeting { .. } => Poll::Pending,
            Self::Open(open) => open.poll(cx, connection),
        }
    }
}

impl<T> Open<T>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Rc<Connection>) -> Poll<Result<(), h2::Error>> {
        if let Some(keep_alive) = &mut self.keep_alive
            && keep_alive.poll_gone(cx, &connection.state).is_ready()
        {
            self.keep_alive = None;
            self.codec.abrupt_shutdown(Reason::NO_ERROR);
        }
        while let Some(accepted) = ready!(self.codec.poll_accept(cx)) {
            let (request, respond) = accepted?;
            connection.state.h2().taken_up.set(respond.stream_id().as_u32());
            stream::begin(connection, request, respond);
        }
        Poll::Ready(Ok(()))
    }
}
