//! The rest of a request whose answer has already begun: a task sends it, so that a downstream that does not read yet can
//! go on sending.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::task::AbortHandle;

use crate::outgoing::{Outgoing, SendError};
use crate::request_body::RequestBody;
use crate::upstream::wire::Wire;

/// The task that sends the rest; it ends when this is dropped.
pub(super) struct Rest {
    task: AbortHandle,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    outcome: Cell<Outcome>,
    /// Who reads the answer, and has to know when the body breaks off.
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    #[default]
    UnderWay,
    /// The whole request is out.
    Sent,
    /// The endpoint takes no more: what it answers may be whole all the same.
    Refused,
    /// The body breaks off.
    Broken,
}

impl Rest {
    pub(super) fn send(mut outgoing: Outgoing, mut body: RequestBody, wire: Rc<RefCell<Wire>>) -> Self {
        let state = Rc::<State>::default();
        let told = state.clone();
        let task = tokio::task::spawn_local(async move {
            let sent = poll_fn(|cx| outgoing.poll(&mut *wire.borrow_mut(), &mut body, cx)).await;
            told.outcome.set(match sent {
                Ok(()) => Outcome::Sent,
                Err(SendError::Wire) => Outcome::Refused,
                Err(SendError::Body) => Outcome::Broken,
            });
            if let Some(reader) = told.reader.take() {
                reader.wake();
            }
        });
        Self { task: task.abort_handle(), state }
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.state.outcome.get()
    }

    /// Wakes whoever asks when the outcome is known.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        if self.outcome() == Outcome::UnderWay {
            self.state.reader.replace(Some(cx.waker().clone()));
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.task.abort();
    }
}
