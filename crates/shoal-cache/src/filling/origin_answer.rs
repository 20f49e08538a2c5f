//! What an answer of the origin is, before anything is done with it.

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::key::url_of;
use shoal_policy::cache::storage::{Exchange, Storage, judge_storage};
use shoal_policy::failure::Failure;

use crate::body::OriginBody;
use crate::task::FillTask;

/// Judges a response to the request of a fill.
pub(super) fn judge(
    task: &FillTask,
    status: StatusCode,
    response: &HeaderMap,
    request_ms: u64,
    response_ms: u64,
) -> Storage {
    judge_storage(&Exchange {
        method: &task.head.method,
        url: url_of(&task.fill().text),
        request: &task.head.headers,
        wishes: Wishes { no_store: task.wishes.no_store, ..Wishes::default() },
        status,
        response,
        request_ms,
        response_ms,
        rule: &task.rule,
    })
}

/// The next part of a body, trailers left out: they must not become fields of the object.
pub(super) async fn next_piece(body: &mut OriginBody) -> Option<Result<Bytes, Failure>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(piece)) => return Some(Ok(piece)),
            Ok(Err(_)) => {}
            Err(failure) => return Some(Err(failure)),
        }
    }
}

/// The answer makes sense only where a part, or something under a condition, was asked for.
pub(super) const fn speaks_of_part(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::PRECONDITION_FAILED
    )
}

/// `Date` is added where the origin sent none (RFC 9110 §6.6.1).
pub(super) fn add_date(fields: &mut HeaderMap, now_ms: u64) {
    if !fields.contains_key(DATE) {
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now_ms);
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
            fields.insert(DATE, date);
        }
    }
}
