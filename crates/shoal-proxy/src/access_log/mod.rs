//! The access log: a line a request, as JSON or by a template, written by a thread of its own.

mod line;
mod writer;

pub(crate) use line::line;
pub(crate) use writer::{LogLine, start};
