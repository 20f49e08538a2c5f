//! HTTP/2 towards the downstream: the codec of a connection, its streams, and whether anybody is still there.

mod goodbye;
mod keep_alive;
mod serve;
mod stream;

pub(super) use serve::{error_of, limit_of, serve};
