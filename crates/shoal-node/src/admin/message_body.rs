//! Messages of operators on their way in: as long as the call may have them, within a time, and within the memory that all
//! of them together may take.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use shoal_model::Role;
use shoal_proto::MAX_ADMIN_MESSAGE;
use shoal_proto::calls::AdminCall;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use super::failure::{Exit, with_exit};
use crate::shares::{NoShare, Portions, Share};

/// Largest message that is a list of what is to be purged, or fetched.
const MAX_LIST_MESSAGE: usize = 16 << 20;
/// Largest plan of somebody who may not change anything: what is done with it takes far more memory than the message.
const MAX_VIEWER_PLAN: usize = 8 << 20;
/// Largest message of all other calls.
const MAX_SHORT_MESSAGE: usize = 64 << 10;
/// For a message to arrive as a whole.
const MESSAGE_TIME: Duration = Duration::from_secs(60);
/// Bytes of messages that are under way or being answered, on one node.
pub const MESSAGE_BYTES: Portions = Portions { most: 384 << 20, each: 192 << 20, reserve: 192 << 20 };

const fn most_bytes(call: AdminCall, role: Role) -> usize {
    match call {
        AdminCall::Plan | AdminCall::PlanEdit if matches!(role, Role::Viewer) => MAX_VIEWER_PLAN,
        AdminCall::Plan
        | AdminCall::Apply
        | AdminCall::Stage
        | AdminCall::RollOut
        | AdminCall::Edit
        | AdminCall::PlanEdit => MAX_ADMIN_MESSAGE,
        AdminCall::Purge | AdminCall::CacheWarm => MAX_LIST_MESSAGE,
        _ => MAX_SHORT_MESSAGE,
    }
}

/// What a call has of the memory for messages, until it is answered.
pub type Held = Arc<Mutex<Share>>;

/// The message of a call.
pub struct MessageBody {
    body: Body,
    call: AdminCall,
    role: Role,
    seen: usize,
    held: Held,
    clock: Pin<Box<Sleep>>,
}

impl MessageBody {
    /// `body` of `call` by somebody with `role`.
    pub fn of(call: AdminCall, role: Role, body: Body, held: Held) -> Self {
        Self { body, call, role, seen: 0, held, clock: Box::pin(tokio::time::sleep(MESSAGE_TIME)) }
    }

    fn take_in(&mut self, bytes: usize) -> Result<(), Status> {
        self.seen += bytes;
        let (name, most) = (self.call.name(), most_bytes(self.call, self.role));
        if self.seen > most {
            let by = match most < most_bytes(self.call, Role::Admin) {
                true => format!(" by somebody with the role {}", self.role),
                false => String::new(),
            };
            let why = format!("a message for {name}{by} has at most {most} bytes");
            return Err(with_exit(Code::OutOfRange, Exit::Local, why));
        }
        let taken = self.held.lock().unwrap_or_else(PoisonError::into_inner).grow(bytes);
        taken.map_err(|none| {
            let whose = match none {
                NoShare::Taken => "of operators",
                NoShare::OwnIsTaken => "of yours",
            };
            let why =
                format!("too many large messages {whose} are under way on this node; try again in a moment");
            with_exit(Code::ResourceExhausted, Exit::Remote, why)
        })
    }
}

impl HttpBody for MessageBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.clock.as_mut().poll(context).is_ready() {
            let why = format!("the message did not arrive within {} s", MESSAGE_TIME.as_secs());
            return Poll::Ready(Some(Err(with_exit(Code::DeadlineExceeded, Exit::Remote, why))));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let taken = frame.data_ref().map_or(Ok(()), |data| self.take_in(data.len()));
        Poll::Ready(Some(taken.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
