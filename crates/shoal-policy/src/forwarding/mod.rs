//! Hop-by-hop and forwarding fields, on the way in and out. Everything is changed in place.

mod caller;
mod client;
mod forwarded;
mod hops;
mod max_forwards;
mod own_fields;
mod request;
mod response;
mod trace_context;

use http::HeaderName;

/// What a request is called: told in the request to the endpoint and in the response, and logged.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names of our own between nodes: nobody outside may use them.
const OWN_PREFIX: &str = "shoal-";

pub use caller::Caller;
pub use client::Client;
pub use max_forwards::take_hop;
pub use own_fields::OwnFields;
pub use request::{OwnName, RequestFields, believed_request_id, prepare_request};
pub use response::{Arrival, prepare_response, strip_interim};
pub use trace_context::{Span, enter_trace};
