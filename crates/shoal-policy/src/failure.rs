//! Every way an exchange can fail, in one closed type: it sets the response, the log reason and the metric together.

/// Who is to blame. What the downstream did wrong never counts against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that called us.
    Downstream,
    /// The endpoint, or the way to it.
    Upstream,
    /// This node: its configuration, its limits, its state.
    Node,
}

/// How an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The request is malformed or ambiguous.
    BadRequest(&'static str),
    /// The request target is longer than allowed.
    UriTooLong,
    /// The request head is larger than allowed.
    HeadTooLarge,
    /// The request body is larger than allowed.
    BodyTooLarge,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// A stream shall become something that is not known here, or not allowed on its route.
    UnknownProtocol,
    /// The host is served here, but not on this connection.
    Misdirected,
    /// The downstream went away.
    DownstreamReset,
    /// The downstream was too slow.
    DownstreamTimeout,
    /// No endpoint could be connected to.
    UpstreamConnectFailed,
    /// Connecting took too long.
    UpstreamConnectTimeout,
    /// The endpoint closed or reset the connection before it had answered.
    UpstreamReset,
    /// The endpoint's answer is not HTTP as it should be.
    UpstreamProtocol,
    /// The endpoint took too long to answer.
    UpstreamResponseTimeout,
    /// No route matches.
    NoRoute,
    /// The upstream has no endpoint that may be used.
    NoEndpoint,
    /// A queue or pool is at its limit.
    Overflow,
    /// The node is overloaded.
    Overload,
    /// The node is draining.
    Draining,
    /// The request came back to us.
    Loop,
    /// `only-if-cached`, and it is not.
    NotCached,
    /// The object may not be served unverified and the origin cannot be reached.
    Unverified,
    /// A defect of ours.
    Internal,
}

/// How an exchange has ended, as far as it tells whose doing that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the downstream was answered with, or would have been but for a head that was out.
    pub status: u16,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// An endpoint was asked, for this exchange or for the cache on its behalf.
    pub was_asked: bool,
    /// The endpoint was asked for an upgrade.
    pub asked_switch: bool,
    /// The downstream had not sent its request to the end.
    pub awaits_downstream: bool,
    /// How long it took was the downstream's doing as well: it let its body be waited for, or said how long it would wait.
    pub is_timed_by_downstream: bool,
}

/// What an exchange says of what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Nothing: any downstream can have any node answer so, whatever it serves.
    Nothing,
    /// It does well.
    Good,
    /// It does not.
    Fault,
}

impl Ending {
    /// What it says of what is served: nothing, where this node answered by itself and did not fail, where no endpoint knows
    /// such a method or version (501, 505), and where the downstream can have brought it about by itself.
    pub fn tells(self) -> Tells {
        let is_of_downstream = match self.failure {
            // Anybody can write our name into a `Via`. What goes in circles because of the site is the answer of an endpoint.
            Some(Failure::Loop) => true,
            Some(Failure::UpstreamResponseTimeout) => self.is_timed_by_downstream,
            // Where the endpoint has nothing to switch to, the question is what was wrong.
            Some(Failure::UpstreamProtocol) => self.asked_switch,
            Some(failure) => failure.side() == Side::Downstream,
            None => !self.was_asked || matches!(self.status, 501 | 505),
        };
        match self.status {
            _ if is_of_downstream || self.awaits_downstream => Tells::Nothing,
            500.. => Tells::Fault,
            _ => Tells::Good,
        }
    }
}

impl Failure {
    /// Who is to blame.
    pub const fn side(self) -> Side {
        match self {
            Self::BadRequest(_)
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::BodyTooLarge
            | Self::ExpectationFailed
            | Self::UnknownProtocol
            | Self::Misdirected
            | Self::DownstreamReset
            | Self::DownstreamTimeout
            | Self::NotCached => Side::Downstream,
            Self::UpstreamConnectFailed
            | Self::UpstreamConnectTimeout
            | Self::UpstreamReset
            | Self::UpstreamProtocol
            | Self::UpstreamResponseTimeout
            | Self::Unverified => Side::Upstream,
            Self::NoRoute
            | Self::NoEndpoint
            | Self::Overflow
            | Self::Overload
            | Self::Draining
            | Self::Loop
            | Self::Internal => Side::Node,
        }
    }

    /// The status the downstream gets (RFC 9110 §15.5, §15.6). 499 is only logged: nobody is there to read it.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::NoRoute => 404,
            Self::DownstreamTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::Misdirected => 421,
            Self::HeadTooLarge => 431,
            Self::DownstreamReset => 499,
            Self::Internal => 500,
            Self::UnknownProtocol => 501,
            Self::UpstreamConnectFailed | Self::UpstreamReset | Self::UpstreamProtocol => 502,
            Self::NoEndpoint | Self::Overflow | Self::Overload | Self::Draining => 503,
            Self::UpstreamConnectTimeout
            | Self::UpstreamResponseTimeout
            | Self::NotCached
            | Self::Unverified => 504,
            Self::Loop => 508,
        }
    }

    /// Its name in access logs and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "downstream_bad_request",
            Self::UriTooLong => "downstream_uri_too_long",
            Self::HeadTooLarge => "downstream_head_too_large",
            Self::BodyTooLarge => "downstream_body_too_large",
            Self::ExpectationFailed => "downstream_expectation",
            Self::UnknownProtocol => "downstream_unknown_protocol",
            Self::Misdirected => "downstream_misdirected",
            Self::DownstreamReset => "downstream_reset",
            Self::DownstreamTimeout => "downstream_timeout",
            Self::UpstreamConnectFailed => "upstream_connect_failed",
            Self::UpstreamConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamResponseTimeout => "upstream_response_timeout",
            Self::NoRoute => "node_no_route",
            Self::NoEndpoint => "node_no_endpoint",
            Self::Overflow => "node_overflow",
            Self::Overload => "node_overload",
            Self::Draining => "node_draining",
            Self::Loop => "node_loop",
            Self::NotCached => "downstream_only_if_cached",
            Self::Unverified => "upstream_unverified",
            Self::Internal => "node_internal",
        }
    }

    /// Its type in `Proxy-Status` (RFC 9209 §2.3); `None` = it is no error of this proxy or what lies behind it.
    pub const fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::BadRequest(_)
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::BodyTooLarge
            | Self::ExpectationFailed
            | Self::UnknownProtocol
            | Self::Misdirected
            | Self::DownstreamTimeout => Some("http_request_error"),
            Self::DownstreamReset | Self::NotCached => None,
            Self::UpstreamConnectFailed => Some("connection_refused"),
            Self::UpstreamConnectTimeout => Some("connection_timeout"),
            Self::UpstreamReset => Some("connection_terminated"),
            Self::UpstreamProtocol => Some("http_protocol_error"),
            Self::UpstreamResponseTimeout => Some("http_response_timeout"),
            Self::NoRoute => Some("destination_not_found"),
            Self::NoEndpoint | Self::Unverified => Some("destination_unavailable"),
            Self::Overflow => Some("connection_limit_reached"),
            Self::Overload | Self::Draining => Some("proxy_internal_response"),
            Self::Loop => Some("proxy_loop_detected"),
            Self::Internal => Some("proxy_internal_error"),
        }
    }

    /// Nothing of an answer was seen because the origin could not be reached: stale objects may be served.
    pub const fn is_disconnect(self) -> bool {
        matches!(
            self,
            Self::UpstreamConnectFailed
                | Self::UpstreamConnectTimeout
                | Self::UpstreamReset
                | Self::UpstreamResponseTimeout
                | Self::NoEndpoint
                | Self::Unverified
        )
    }
}

/// For bodies that break off: HTTP libraries want their errors as such.
impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_downstream_can_bring_about_says_nothing() {
        use Tells::{Fault, Good, Nothing};
        const ASKED: Ending = Ending {
            status: 200,
            failure: None,
            was_asked: true,
            asked_switch: false,
            awaits_downstream: false,
            is_timed_by_downstream: false,
        };
        for (status, failure, expected) in [
            (101, None, Good),
            (200, None, Good),
            (200, Some(Failure::UpstreamReset), Good), // in the middle of its body: who reads slowly can have that
            (404, None, Good),
            (413, Some(Failure::BodyTooLarge), Nothing),
            (499, Some(Failure::DownstreamReset), Nothing),
            (500, None, Fault),
            (501, None, Nothing),
            (501, Some(Failure::UnknownProtocol), Nothing),
            (502, Some(Failure::UpstreamReset), Fault),
            (502, Some(Failure::UpstreamProtocol), Fault),
            (503, Some(Failure::NoEndpoint), Fault),
            (503, Some(Failure::Overload), Fault),
            (504, Some(Failure::UpstreamResponseTimeout), Fault),
            (504, Some(Failure::NotCached), Nothing),
            (505, None, Nothing),
            (508, None, Fault), // an endpoint says so: the site goes in circles
            (508, Some(Failure::Loop), Nothing),
            (599, None, Fault),
        ] {
            let ending = Ending { status, failure, ..ASKED };
            assert_eq!(ending.tells(), expected, "{ending:?}");
            let unfinished = Ending { awaits_downstream: true, ..ending };
            assert_eq!(unfinished.tells(), Nothing, "{unfinished:?}");
            let slow = Ending { is_timed_by_downstream: true, ..ending };
            let is_timeout = failure == Some(Failure::UpstreamResponseTimeout);
            assert_eq!(slow.tells(), if is_timeout { Nothing } else { expected }, "{slow:?}");
            let switch = Ending { asked_switch: true, ..ending };
            let is_protocol = failure == Some(Failure::UpstreamProtocol);
            assert_eq!(switch.tells(), if is_protocol { Nothing } else { expected }, "{switch:?}");
            let by_itself = Ending { was_asked: false, ..ending };
            let expected = if failure.is_none() { Nothing } else { expected };
            assert_eq!(by_itself.tells(), expected, "{by_itself:?}");
        }
    }
}
