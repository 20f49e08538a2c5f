//! A downstream on HTTP/2 that waits for a 100 (Continue) before it sends the body of its request (RFC 9110 §10.1.1).

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Shared by who reads the body and who answers the request: the latter says it when the former wants it.
#[derive(Default)]
pub(crate) struct AwaitedContinue {
    is_asked: Cell<bool>,
    answerer: RefCell<Option<Waker>>,
}

impl AwaitedContinue {
    /// The body is wanted.
    pub(crate) fn ask(&self) {
        self.is_asked.set(true);
        if let Some(answerer) = self.answerer.take() {
            answerer.wake();
        }
    }

    /// Ready, once, when the body is wanted.
    pub(crate) fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_asked.take() {
            return Poll::Ready(());
        }
        self.answerer.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}
