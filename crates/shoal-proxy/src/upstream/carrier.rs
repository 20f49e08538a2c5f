//! What carries one request: an HTTP/1.1 connection of its own, or a place on one of HTTP/2.

use std::future::Future;
use std::time::Duration;

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use shoal_policy::failure::Failure;
use shoal_policy::retry::Progress;

use super::endpoint::Occupied;
use super::h2_head::{to_extended_connect, to_h2, to_http1};
use super::pool::Link;
use super::response::blame_upstream;
use super::shared::{self, Stream};
use crate::body::RequestBody;

/// What carries one request.
pub(super) enum Carrier {
    Own(Link),
    Shared(Stream),
}

impl Carrier {
    /// Its connection has served other requests before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Own(link) => link.served > 0,
            Self::Shared(stream) => stream.served() > 0,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Sends `request` at once; the answer waits for the response head.
    pub(super) fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        match self {
            Self::Own(link) => {
                link.begin();
                Either::Left(link.sender.try_send_request(request))
            }
            Self::Shared(stream) => {
                to_h2(&mut request, stream.is_secure());
                Either::Right(stream.send(request))
            }
        }
    }

    /// Sends the opening handshake of a tunnel.
    pub(super) fn send_upgrade(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        if self.is_shared() {
            to_extended_connect(&mut request);
        }
        self.send(request)
    }

    /// Its endpoint agrees to tunnels in general; that may be waited for.
    pub(super) async fn may_become_tunnel(&self, patience: Duration) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Shared(stream) => stream.may_become_tunnel(patience).await,
        }
    }

    /// The endpoint has switched: it is a tunnel from now on, until the answer is dropped.
    pub(super) fn detach(self) -> (Option<Occupied>, Option<Stream>) {
        match self {
            Self::Own(mut link) => (link.detach(), None),
            Self::Shared(stream) => (None, Some(stream)),
        }
    }

    /// Makes a request that came back ready for another try.
    pub(super) fn restore(&self, request: &mut Request<RequestBody>) {
        if self.is_shared() {
            self.retire();
            to_http1(request);
        }
    }

    /// Which failure an error before the response head is, and how far the request got.
    pub(super) fn judge(&self, error: &hyper::Error, reused: bool) -> (Failure, Progress) {
        match self {
            Self::Own(_) => match blame_upstream(error) {
                Failure::UpstreamReset if reused => (Failure::UpstreamReset, Progress::SentOnReused),
                Failure::UpstreamReset => (Failure::UpstreamReset, Progress::SentOnFresh),
                failure => (failure, Progress::Answered),
            },
            Self::Shared(_) => {
                let (failure, progress) = shared::judge(error, reused);
                if progress == Progress::NotStarted {
                    self.retire();
                }
                (failure, progress)
            }
        }
    }

    /// Its connection takes no more requests.
    pub(super) fn retire(&self) {
        if let Self::Shared(stream) = self {
            stream.retire();
        }
    }
}
