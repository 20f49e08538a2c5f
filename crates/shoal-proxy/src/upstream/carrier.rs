//! What carries one request: an HTTP/1.1 connection of its own, or a place on one of HTTP/2.

use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts as RequestHead;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::OwnFields;
use shoal_policy::retry::Progress;

use super::answered::{Answered, Unanswered};
use super::h2_head::{extended_connect, to_h2};
use super::http1::{ExchangeError, Interim};
use super::pool::Link;
use super::shared::Stream;
use crate::request_body::RequestBody;

/// What carries one request.
pub(super) enum Carrier {
    Own(Box<Link>),
    Shared(Stream),
}

impl Carrier {
    /// Its connection has served other requests before.
    fn is_reused(&self) -> bool {
        match self {
            Self::Own(link) => link.served > 0,
            Self::Shared(stream) => stream.served() > 0,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Sends a request, with fields of this node, and waits for the head of the answer. `interim` takes in what comes
    /// before that. The codec of HTTP/2 shows none of it: there a body does not wait.
    pub(super) async fn send(
        &mut self,
        head: &RequestHead,
        own: Option<&OwnFields>,
        mut body: RequestBody,
        interim: Interim<'_>,
    ) -> Result<Answered, Box<Unanswered>> {
        let reused = self.is_reused();
        match self {
            Self::Own(link) => match link.exchange(head, own, &mut body, interim).await {
                Ok(status) => Ok(Answered::OnLink(status)),
                Err(error) => Err(judge(error, reused, body)),
            },
            Self::Shared(stream) => {
                let mut request = to_h2(head, own, body, stream.is_secure());
                if interim.holds_body() {
                    request.headers_mut().remove(EXPECT);
                }
                stream.exchange(request, reused).await
            }
        }
    }

    /// Sends the opening handshake of a tunnel.
    pub(super) async fn send_upgrade(&mut self, head: &RequestHead) -> Result<Answered, Box<Unanswered>> {
        match self {
            Self::Own(_) => self.send(head, None, RequestBody::Empty, Interim::new(None, None)).await,
            Self::Shared(stream) => {
                let request = extended_connect(head, stream.is_secure());
                stream.exchange(request, stream.served() > 0).await
            }
        }
    }

    /// Its endpoint agrees to tunnels in general; that may be waited for.
    pub(super) async fn may_become_tunnel(&self, patience: Duration) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Shared(stream) => stream.may_become_tunnel(patience).await,
        }
    }

    /// The answer keeps how its names are spelled, or not. Over HTTP/2 there is nothing to keep.
    pub(super) fn keep_names(&mut self, keeps: bool) {
        if let Self::Own(link) = self {
            link.connection.keep_names(keeps);
        }
    }

    /// Its connection takes no more requests.
    pub(super) fn retire(&self) {
        if let Self::Shared(stream) = self {
            stream.retire();
        }
    }
}

/// Which failure it is that an HTTP/1.1 connection has no answer, and how far the request got.
fn judge(error: ExchangeError, reused: bool, body: RequestBody) -> Box<Unanswered> {
    match error {
        // A fresh connection to which nothing can be sent is none.
        ExchangeError::NotSent { body_untouched } => {
            let progress = if reused { Progress::NotStarted } else { Progress::NotConnected };
            let body = body_untouched.then_some(body);
            Box::new(Unanswered { failure: Failure::UpstreamReset, progress, body })
        }
        ExchangeError::Closed if reused => Unanswered::lost(Failure::UpstreamReset, Progress::SentOnReused),
        ExchangeError::Taken if reused => Unanswered::lost(Failure::UpstreamReset, Progress::TakenOnReused),
        ExchangeError::Closed | ExchangeError::Taken => {
            Unanswered::lost(Failure::UpstreamReset, Progress::SentOnFresh)
        }
        ExchangeError::CutShort => Unanswered::lost(Failure::UpstreamReset, Progress::Answered),
        ExchangeError::Malformed => Unanswered::lost(Failure::UpstreamProtocol, Progress::Answered),
        ExchangeError::RequestBroken => Unanswered::lost(Failure::DownstreamReset, Progress::Answered),
    }
}
