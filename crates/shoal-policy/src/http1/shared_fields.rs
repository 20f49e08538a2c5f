//! Fields that many answers have in common, written once.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, DATE};

use super::Spelling;
use super::request_head::write_fields;
use crate::forwarding::X_REQUEST_ID;

/// Fields that many answers have in common: as a map, and as lines of a head with their names in lower case.
/// `x-request-id`, which each answer has for itself, has a place in the map, so that the map does not grow when it is
/// told, but no line.
#[derive(Debug)]
pub struct SharedFields {
    map: HeaderMap,
    lines: Box<[u8]>,
    pub(super) has_length: bool,
    pub(super) has_date: bool,
}

impl SharedFields {
    /// Writes `map`.
    pub fn of(map: HeaderMap) -> Self {
        let mut lines = Vec::new();
        write_fields(&mut lines, map.iter().filter(|(name, _)| **name != X_REQUEST_ID), Spelling::Lower);
        let (has_length, has_date) = (map.contains_key(CONTENT_LENGTH), map.contains_key(DATE));
        Self { map, lines: lines.into(), has_length, has_date }
    }

    /// The fields.
    pub const fn map(&self) -> &HeaderMap {
        &self.map
    }

    /// Lines, each with its end.
    pub const fn lines(&self) -> &[u8] {
        &self.lines
    }
}
