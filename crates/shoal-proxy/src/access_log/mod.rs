//! The access log: a line a request, as JSON or by a template, written by a thread of its own.

mod writer;

pub(crate) use writer::{LogLine, start};
