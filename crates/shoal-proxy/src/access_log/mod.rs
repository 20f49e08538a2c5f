//! The access log: a line a request, as JSON or by a template, written by a thread of its own.

mod file;
mod handle;
mod json;
mod template;
mod writer;

pub(crate) use handle::{AccessLog, LogLine};
pub(crate) use json::to_json;
pub(crate) use template::{Value, fill};
