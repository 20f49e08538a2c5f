//! Fields as they are kept with a stored response: one block of lines, as a head of HTTP/1.1 has them.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr, memchr_iter, memmem};

use super::fields::Fields;
use crate::http1::{Spelling, write_fields};

/// Between a name and its value.
const COLON: &[u8] = b": ";
/// Behind a value.
const END: &[u8] = b"\r\n";

/// The fields of a stored response. A map of them takes some ten times as much memory, and there may be millions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredFields(Box<[u8]>);

impl StoredFields {
    /// Those of a map. The lines of one name keep their order, and stand together.
    pub fn of(map: &HeaderMap) -> Self {
        Self::written(map)
    }

    /// The same, but for `Content-Length`: that says `length`, or is not there.
    #[must_use]
    pub fn with_length(&self, length: Option<u64>) -> Self {
        let others = self.split().filter(|line| line.name != CONTENT_LENGTH.as_str().as_bytes());
        let mut lines: Vec<u8> = Vec::with_capacity(self.0.len() + 32);
        others.for_each(|line| lines.extend_from_slice(line.whole));
        if let Some(length) = length {
            write_fields(&mut lines, [(&CONTENT_LENGTH, &HeaderValue::from(length))], Spelling::Lower);
        }
        Self(lines.into())
    }

    /// As lines of a head, each with its end, the names in lower case.
    pub const fn lines(&self) -> &[u8] {
        &self.0
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        memchr_iter(b'\n', &self.0).count()
    }

    /// There is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name, in lower case, and value of each line.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.split().map(|line| (line.name, line.value))
    }

    /// As a map, with room for some `more`. All values lie in one block.
    pub fn to_map(&self, more: usize) -> HeaderMap {
        let block = Bytes::copy_from_slice(&self.0);
        let mut map = HeaderMap::try_with_capacity(self.len() + more).unwrap_or_default();
        for line in self.split() {
            let value = HeaderValue::from_maybe_shared(block.slice(line.value_at..line.end));
            // They were a name and a value before.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(line.name), value) {
                // A map holds more lines than any head that is taken in.
                _ = map.try_append(name, value);
            }
        }
        map
    }

    fn written<'a>(fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Self {
        let mut lines = Vec::new();
        write_fields(&mut lines, fields, Spelling::Lower);
        Self(lines.into())
    }

    fn split(&self) -> Lines<'_> {
        Lines { block: &self.0, at: 0 }
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for StoredFields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        let fields: Vec<(HeaderName, HeaderValue)> = fields.into_iter().collect();
        Self::written(fields.iter().map(|(name, value)| (name, value)))
    }
}

impl Fields for StoredFields {
    fn line(&self, name: &HeaderName) -> Option<&[u8]> {
        let name = name.as_str().as_bytes();
        self.split().find(|line| line.name == name).map(|line| line.value)
    }

    fn lines_of<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str().as_bytes();
        self.split().filter(move |line| line.name == name).map(|line| line.value)
    }
}

impl fmt::Debug for StoredFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_list().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// The lines of a block.
struct Lines<'a> {
    block: &'a [u8],
    /// Where the next one begins.
    at: usize,
}

struct Line<'a> {
    /// With its end.
    whole: &'a [u8],
    name: &'a [u8],
    value: &'a [u8],
    /// Where the value begins in the block, and where it ends.
    value_at: usize,
    end: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.block[self.at..];
        // No name has a colon in it, and no value a line end.
        let colon = memchr(COLON[0], rest)?;
        let value_at = colon + COLON.len();
        let end = value_at + memmem::find(&rest[value_at..], END)?;
        let line = Line {
            whole: &rest[..end + END.len()],
            name: &rest[..colon],
            value: &rest[value_at..end],
            value_at: self.at + value_at,
            end: self.at + end,
        };
        self.at += line.whole.len();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AGE, ETAG, LINK, VARY};

    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn they_are_what_they_were() {
        let check = |lines: &[(&'static str, &'static str)], expected: &str| {
            let stored = StoredFields::of(&map(lines));
            assert_eq!(std::str::from_utf8(stored.lines()).unwrap(), expected);
            assert_eq!(stored.to_map(2), map(lines), "{lines:?}");
            assert_eq!(stored.len(), lines.len());
            let again = stored.to_map(0).into_iter().map(|(name, value)| (name.unwrap_or(LINK), value));
            assert_eq!(again.collect::<StoredFields>(), stored);
        };
        check(&[], "");
        check(&[("etag", "\"1\"")], "etag: \"1\"\r\n");
        check(&[("x-a", ""), ("x-b", " a: b ")], "x-a: \r\nx-b:  a: b \r\n");
        check(&[("link", "b"), ("age", "1"), ("link", "a")], "link: b\r\nlink: a\r\nage: 1\r\n");
    }

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let stored = StoredFields::of(&map(&[("x-etag", "0"), ("etag", "1"), ("link", "a"), ("link", "b")]));
        let check = |name: &HeaderName, expected: &[&[u8]]| {
            assert_eq!(stored.lines_of(name).collect::<Vec<_>>(), expected, "{name}");
            assert_eq!(stored.line(name), expected.first().copied());
            assert_eq!(stored.has(name), !expected.is_empty());
        };
        check(&ETAG, &[b"1"]);
        check(&LINK, &[b"a", b"b"]);
        check(&VARY, &[]);
        check(&HeaderName::from_static("x-e"), &[]);
    }

    #[test]
    fn bytes_beyond_ascii_stay() {
        let mut map = HeaderMap::new();
        map.insert(AGE, HeaderValue::from_bytes(b"\xff\t\xe9").unwrap());
        assert_eq!(StoredFields::of(&map).to_map(0), map);
    }

    #[test]
    fn there_is_one_length() {
        let check = |lines: &[(&'static str, &'static str)], length, expected: &str| {
            let stored = StoredFields::of(&map(lines)).with_length(length);
            assert_eq!(std::str::from_utf8(stored.lines()).unwrap(), expected);
        };
        check(&[("content-length", "1"), ("age", "1")], Some(2), "age: 1\r\ncontent-length: 2\r\n");
        check(&[("content-length", "1"), ("age", "1")], None, "age: 1\r\n");
        check(&[], Some(0), "content-length: 0\r\n");
    }
}
