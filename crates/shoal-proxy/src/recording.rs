//! Request bodies that are kept while they are sent, so that they can be sent again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use shoal_policy::failure::Failure;

use crate::downstream_body::{BodyProgress, DownstreamBody};

/// A body as far as it came from the downstream, and where the rest comes from.
pub(crate) struct Recording {
    source: RefCell<DownstreamBody>,
    progress: Rc<BodyProgress>,
    kept: RefCell<Vec<u8>>,
    max_bytes: usize,
    /// It is longer than may be kept, or has trailers: it cannot be sent again.
    lost: Cell<bool>,
    ended: Cell<bool>,
    /// Its length, if known beforehand.
    length: Option<u64>,
    /// Which reading counts: those before are given up.
    turn: Cell<u32>,
}

/// A recorded body, read from its start.
pub(crate) struct RecordedBody {
    recording: Rc<Recording>,
    /// What was sent before and comes once more.
    again: Option<Bytes>,
    handed_on: u64,
    turn: u32,
}

impl Recording {
    /// Records `source` up to `max_bytes`.
    pub(crate) fn of(source: DownstreamBody, max_bytes: usize) -> Self {
        Self {
            progress: source.progress().clone(),
            length: source.size_hint().exact(),
            source: RefCell::new(source),
            kept: RefCell::default(),
            max_bytes,
            lost: Cell::new(false),
            ended: Cell::new(false),
            turn: Cell::new(0),
        }
    }

    /// Everything that came so far is kept.
    pub(crate) fn is_whole(&self) -> bool {
        !self.lost.get()
    }

    /// The body from its start; readings before this one come to nothing.
    pub(crate) fn read(self: &Rc<Self>) -> RecordedBody {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        self.progress.done.set(false);
        let kept = self.kept.borrow();
        let again = (!kept.is_empty()).then(|| Bytes::copy_from_slice(&kept));
        RecordedBody { recording: self.clone(), again, handed_on: 0, turn }
    }

    fn keep(&self, frame: &Frame<Bytes>) {
        let mut kept = self.kept.borrow_mut();
        match frame.data_ref() {
            Some(data) if !self.lost.get() && kept.len() + data.len() <= self.max_bytes => {
                kept.extend_from_slice(data);
            }
            Some(_) | None => {
                self.lost.set(true);
                *kept = Vec::new();
            }
        }
    }
}

impl RecordedBody {
    pub(crate) fn progress(&self) -> &Rc<BodyProgress> {
        &self.recording.progress
    }

    /// The request is being sent once more: nobody waits for this reading, and it must not look complete.
    pub(crate) fn is_given_up(&self) -> bool {
        self.turn != self.recording.turn.get()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let recording = &self.recording;
        if let Some(again) = self.again.take() {
            self.handed_on += again.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        if recording.ended.get() {
            return Poll::Ready(None);
        }
        let polled = recording.source.borrow_mut().poll(cx);
        match &polled {
            Poll::Ready(None) => recording.ended.set(true),
            Poll::Ready(Some(Ok(frame))) => {
                recording.keep(frame);
                self.handed_on += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.again.is_none() && (self.recording.ended.get() || self.recording.source.borrow().is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let length = self.recording.length;
        length
            .map_or_else(SizeHint::new, |length| SizeHint::with_exact(length.saturating_sub(self.handed_on)))
    }
}
