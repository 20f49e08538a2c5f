//! A head that an endpoint has answered with before: most that follow say the same again, but for a value or two.

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use super::{Persistence, ResponseHead};
use crate::gate::{Present, survey};

/// Largest head that is kept, bytes, and most fields of one.
const MAX_BYTES: usize = 2 << 10;
const MAX_FIELDS: usize = 32;
/// Of so many heads that differ from the one that is kept, one takes its place.
const PATIENCE: u8 = 16;

/// The head that is kept of an endpoint, if there is one.
#[derive(Debug, Default)]
pub struct KnownHead {
    kept: Option<Box<Kept>>,
    /// Heads since then that were not the same.
    differed: u8,
}

/// A head in both shapes.
#[derive(Debug)]
struct Kept {
    text: Bytes,
    /// Where the values are in it, in the order of `fields`.
    values: Box<[Place]>,
    status: StatusCode,
    version: Version,
    reason: Option<Bytes>,
    /// Without a `Connection` that is understood: it is taken off in any case.
    fields: HeaderMap,
    present: Present,
    said: Persistence,
}

/// Where a value begins and ends.
type Place = (u16, u16);

/// A head that has the lines of the one that is kept.
struct Likeness {
    /// Of the whole head.
    length: usize,
    /// Which values are others, and where all are.
    changed: u32,
    values: [Place; MAX_FIELDS],
}

impl KnownHead {
    /// Nothing is kept any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes a head off `arrived`, if it is the one that is kept, other values apart. Only they have to be looked at: of all
    /// else these very bytes were found to be good. `None` says nothing of what has arrived.
    pub(super) fn take(&mut self, arrived: &mut BytesMut) -> Option<ResponseHead> {
        let kept = self.kept.as_deref()?;
        let (fields, length) = if arrived.starts_with(&kept.text) {
            (kept.fields.clone(), kept.text.len())
        } else {
            let alike = kept.compare(arrived)?;
            self.differed = self.differed.saturating_add(1);
            if self.differed >= PATIENCE {
                return None;
            }
            (kept.fields_of(arrived, &alike)?, alike.length)
        };
        let mut parts = Response::new(()).into_parts().0;
        (parts.status, parts.version, parts.headers) = (kept.status, kept.version, fields);
        let head =
            ResponseHead { parts, reason: kept.reason.clone(), present: kept.present, said: kept.said };
        arrived.advance(length);
        Some(head)
    }

    /// Takes note of a head that was not known.
    pub(super) fn meet(&mut self, text: &Bytes, head: &ResponseHead) {
        self.differed = self.differed.saturating_add(1);
        if self.kept.is_none() || self.differed >= PATIENCE {
            self.keep(text.clone(), head);
        }
    }

    fn keep(&mut self, text: Bytes, head: &ResponseHead) {
        let (parts, fields) = (&head.parts, &head.parts.headers);
        // A field with two values would stand in another order than its lines.
        let is_plain = fields.len() == fields.keys_len() && fields.len() <= MAX_FIELDS;
        if !is_plain || text.len() > MAX_BYTES || parts.status.is_informational() {
            return;
        }
        let Some(places) = places_of(&text).filter(|places| places.len() == fields.len()) else { return };
        let (mut kept, mut values, mut said) = (HeaderMap::new(), Vec::new(), Persistence::default());
        for ((name, value), place) in fields.iter().zip(places) {
            match persistence(name, value) {
                Some(persistence) => said = persistence,
                None => {
                    kept.append(name.clone(), value.clone());
                    values.push(place);
                }
            }
        }
        self.differed = 0;
        self.kept = Some(Box::new(Kept {
            text,
            values: values.into(),
            status: parts.status,
            version: parts.version,
            reason: head.reason.clone(),
            present: survey(&kept),
            fields: kept,
            said,
        }));
    }
}

impl Kept {
    /// Whether `arrived` begins with a head whose status line, names and line ends are those of this one.
    fn compare(&self, arrived: &[u8]) -> Option<Likeness> {
        let mut alike = Likeness { length: 0, changed: 0, values: [(0, 0); MAX_FIELDS] };
        let (mut at, mut kept_at) = (0, 0);
        for (number, (place, seen)) in self.values.iter().zip(&mut alike.values).enumerate() {
            let (start, end) = (usize::from(place.0), usize::from(place.1));
            let between = &self.text[kept_at..start];
            let rest = arrived[at..].strip_prefix(between)?;
            at += between.len();
            kept_at = end;
            let is_same =
                rest.starts_with(&self.text[start..end]) && rest.get(end - start) == self.text.get(end);
            let value = if is_same { 0..end - start } else { value_in(rest)? };
            alike.changed |= u32::from(!is_same) << number;
            *seen = (u16::try_from(at + value.start).ok()?, u16::try_from(at + value.end).ok()?);
            at += value.end;
        }
        let end = &self.text[kept_at..];
        alike.length = at + end.len();
        arrived[at..].starts_with(end).then_some(alike)
    }

    /// The fields of a head like this one; `None` = they have values that none may have.
    fn fields_of(&self, arrived: &[u8], alike: &Likeness) -> Option<HeaderMap> {
        let mut fields = self.fields.clone();
        // Whoever keeps a field shall not keep all that was read with it.
        let text = Bytes::copy_from_slice(&arrived[..alike.length]);
        for (number, (value, place)) in fields.values_mut().zip(alike.values).enumerate() {
            if alike.changed & 1 << number != 0 {
                let new = text.slice(usize::from(place.0)..usize::from(place.1));
                *value = HeaderValue::from_maybe_shared(new).ok()?;
            }
        }
        Some(fields)
    }
}

/// What a `Connection` says that says nothing else.
fn persistence(name: &HeaderName, value: &HeaderValue) -> Option<Persistence> {
    let mut said = Persistence::default();
    (*name == CONNECTION && said.add(value.as_bytes())).then_some(said)
}

/// Where the values of a whole head are.
fn places_of(head: &[u8]) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let mut at = line_end(head)? + 1;
    while !matches!(head[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
        let line = &head[at..];
        let colon = line.iter().position(|byte| *byte == b':')? + 1;
        let value = value_in(&line[colon..])?;
        let (start, end) = (at + colon + value.start, at + colon + value.end);
        places.push((u16::try_from(start).ok()?, u16::try_from(end).ok()?));
        at = end + line_end(&head[end..])? + 1;
    }
    Some(places)
}

/// Where the value is in what follows the name of a field and its colon (RFC 9112 §5): the blanks around it are none of it.
fn value_in(rest: &[u8]) -> Option<std::ops::Range<usize>> {
    let line = &rest[..line_end(rest)?];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = line.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
    let start = line[..end].iter().position(|byte| !is_blank(byte)).unwrap_or(0);
    Some(start..end)
}

fn line_end(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::{HeadReader, Malformed};
    use super::*;
    use crate::forwarding::prepare_response;

    const FIRST: &str = "HTTP/1.1 200 OK\r\nServer: a\r\nDate:  Mon \r\nContent-Length: 10\r\nX:\r\n\r\n";

    /// What is read of `text` by somebody who knows the head of `first`, and what is left over.
    fn read_after(first: &str, text: &str) -> (Result<Option<String>, Malformed>, String, bool) {
        let mut known = KnownHead::default();
        let mut arrived = BytesMut::from(first);
        HeadReader::default().read(&mut arrived, &mut known).unwrap();
        let mut arrived = BytesMut::from(text);
        let is_known = known.take(&mut arrived.clone()).is_some();
        let read = HeadReader::default().read(&mut arrived, &mut known);
        (read.map(|head| head.map(|head| format!("{head:?}"))), format!("{arrived:?}"), is_known)
    }

    #[test]
    fn who_knows_a_head_reads_others_no_differently() {
        let check = |text: &str, expected: bool| {
            let (read, left, is_known) = read_after(FIRST, text);
            let (plain, plain_left, _) = read_after("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", text);
            assert_eq!((read, left), (plain, plain_left), "{text:?}");
            assert_eq!(is_known, expected, "{text:?}");
        };
        let with = |from: &str, to: &str| FIRST.replace(from, to);
        check(FIRST, true);
        check(&format!("{FIRST}body"), true);
        check(&with("Server: a", "Server: b"), true);
        check(&with("10", "1024"), true);
        check(&with("10", "1"), true);
        check(&with("10", ""), true);
        check(&with("10", "  10\t"), false);
        check(&with("10", "\t 11"), true);
        check(&with("X:\r\n", "X: y\r\n"), true);
        check(&with("Mon", "Tue"), true);
        check(&with("Mon", "\u{e9}"), true);
        check(&with("Mon ", "Mon"), false);
        check(&with("10", "a\0b"), false);
        check(&with("10", "a\rb"), false);
        check(&with("10", "10\r"), false);
        check(&with("10\r\n", "10\n"), false);
        check(&with("10\r\n", "10\r\n folded\r\n"), false);
        check(&with("10\r\n", "10\r\nY: z\r\n"), false);
        check(&with("X:", "Y:"), false);
        check(&with("X:", "X :"), false);
        check(&with("Server", "server"), false);
        check(&with("200 OK", "404 Not Found"), false);
        check(&with("200 OK", "200 Fine"), false);
        check(&with("X:\r\n\r\n", "X:\r\n"), false);
        check(&FIRST[..FIRST.len() - 1], false);
        check(&FIRST[..20], false);
        check("", false);
    }

    #[test]
    fn what_the_connection_was_told_is_told_again() {
        for said in ["keep-alive", "Close", "close, x", "x, Keep-Alive", "upgrade", ""] {
            for version in ["HTTP/1.1", "HTTP/1.0"] {
                let text =
                    format!("{version} 200 OK\r\nX: y\r\nConnection: {said}\r\nContent-Length: 3\r\n\r\n");
                let mut known = KnownHead::default();
                let mut read = || {
                    let arrived = &mut BytesMut::from(text.as_str());
                    let mut head = HeadReader::default().read(arrived, &mut known).unwrap().unwrap();
                    (prepare_response(&mut head, &Method::GET, false), head.parts.headers)
                };
                assert_eq!(read(), read(), "{text:?}");
                assert!(known.take(&mut BytesMut::from(text.as_str())).is_some());
            }
        }
    }

    #[test]
    fn what_is_kept_is_what_most_heads_are_like() {
        let mut known = KnownHead::default();
        let mut read = |text: &str| {
            HeadReader::default().read(&mut BytesMut::from(text), &mut known).unwrap().unwrap();
            known.kept.as_ref().map(|kept| String::from_utf8_lossy(&kept.text).into_owned())
        };
        let head = |field: &str| format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
        for unfit in ["Set-Cookie: a\r\nSet-Cookie: b".into(), format!("A: {}", "b".repeat(MAX_BYTES))] {
            assert_eq!(read(&head(&unfit)), None);
        }
        let (one, same, other) = (head("A: b"), head("A: c"), head("B: b"));
        assert_eq!(read(&one).as_ref(), Some(&one));
        let mut kept = one;
        for new in [same, other] {
            for _ in 1..PATIENCE {
                assert_eq!(read(&new).as_ref(), Some(&kept));
            }
            assert_eq!(read(&new).as_ref(), Some(&new));
            kept = new;
        }
        known.forget();
        assert!(known.kept.is_none());
    }
}
