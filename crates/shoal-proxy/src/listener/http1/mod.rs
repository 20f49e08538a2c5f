//! HTTP/1.1 towards the downstream: one connection, one request at a time.
//!
//! The connection's task reads a head, has it answered, and writes the answer; nothing else runs for it. Whoever wants
//! the body of the request reads it off the connection himself.

mod channel;
mod serve;

pub(crate) use channel::Channel;
pub(super) use serve::serve;
