//! HTTP/1.1 towards endpoints: one connection, one request at a time.
//!
//! Whoever waits for an answer reads it off the connection himself: no task stands in between. Only what is left of a
//! request whose answer has already begun is sent by one.

mod connection;
mod interim;
mod rest;

pub(super) use connection::{BodyError, Connection, ExchangeError};
pub(super) use interim::Interim;
