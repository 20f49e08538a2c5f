//! The body of a request that may have to be sent again: kept while it is sent, up to a limit.

use std::rc::Rc;

use shoal_model::view::RouteView;

use crate::recording::Recording;
use crate::request_body::RequestBody;

/// A body, for one try after the other.
pub(super) enum Replay {
    /// There is none.
    Empty,
    /// For one try, and for another if nobody has read from it.
    Once(Option<RequestBody>),
    /// What was read of it is kept.
    Kept(Rc<Recording>),
}

impl Replay {
    /// Keeps `body` as far as the route allows, if it may be sent `again` at all.
    pub(super) fn of(route: &RouteView, body: RequestBody, again: bool) -> Self {
        if !body.has_bytes() {
            return Self::Empty;
        }
        let max_bytes = route.retry.max_replay_bytes;
        if !again || (max_bytes == 0 && !body.expects_continue()) {
            return Self::Once(Some(body));
        }
        match body.record(max_bytes) {
            Ok(recording) => Self::Kept(recording),
            Err(body) => Self::Once(Some(body)),
        }
    }

    /// Whatever happens to the next try, there is another.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(_) => false,
            Self::Kept(recording) => recording.is_whole(),
        }
    }

    /// The body from its start; `None` = it is gone.
    pub(super) fn take(&mut self) -> Option<RequestBody> {
        match self {
            Self::Empty => Some(RequestBody::Empty),
            Self::Once(body) => body.take(),
            Self::Kept(recording) => recording.is_whole().then(|| RequestBody::Recorded(recording.read())),
        }
    }

    /// Nobody has read from `body`.
    pub(super) fn give_back(&mut self, body: RequestBody) {
        if let Self::Once(place) = self {
            *place = Some(body);
        }
    }
}
