//! Field lines in both shapes, as text and as a map: who has read them once need not parse them again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

/// Most bytes of lines that are kept, and most fields.
pub(super) const MAX_BYTES: usize = 2 << 10;
const MAX_FIELDS: usize = 32;

/// Lines that were found to be good, as far as the empty one at their end.
#[derive(Debug)]
pub(super) struct KnownLines {
    pub(super) text: Bytes,
    /// Where the values are in it, in the order of `fields`.
    values: Box<[Place]>,
    pub(super) fields: HeaderMap,
}

/// Where a value begins and ends.
type Place = (u16, u16);

/// Lines that are those which are known, some values apart.
pub(super) struct Recognised {
    pub(super) fields: HeaderMap,
    /// Of the text, bytes.
    pub(super) length: usize,
    /// The n-th bit: the n-th of the fields has another value.
    pub(super) changed: u32,
}

/// The places of values in lines that have the names that are known.
struct Likeness {
    length: usize,
    changed: u32,
    values: [Place; MAX_FIELDS],
}

impl KnownLines {
    /// `text`, of which the lines of `fields` begin at `start`. A field that is not `kept` is left out: its line has to be
    /// the same, to the letter. `None` = there is too much of it, or a field stands there twice.
    pub(super) fn new(
        text: Bytes,
        start: usize,
        fields: &HeaderMap,
        mut is_kept: impl FnMut(&HeaderName, &HeaderValue) -> bool,
    ) -> Option<Self> {
        // A field with two values would stand in another order than its lines.
        let is_plain = fields.len() == fields.keys_len() && fields.len() <= MAX_FIELDS;
        if !is_plain || text.len() > MAX_BYTES {
            return None;
        }
        let places = places_of(&text, start).filter(|places| places.len() == fields.len())?;
        let (mut kept, mut values) = (HeaderMap::with_capacity(fields.len()), Vec::new());
        for ((name, value), place) in fields.iter().zip(places) {
            if is_kept(name, value) {
                kept.append(name.clone(), value.clone());
                values.push(place);
            }
        }
        Some(Self { text, values: values.into(), fields: kept })
    }

    /// What `arrived` begins with, if it is these lines, other values apart. Only they have to be looked at: of all else
    /// these very bytes were found to be good. `None` says nothing of what has arrived.
    pub(super) fn recognise(&self, arrived: &[u8]) -> Option<Recognised> {
        if arrived.starts_with(&self.text) {
            return Some(Recognised { fields: self.fields.clone(), length: self.text.len(), changed: 0 });
        }
        let alike = self.compare(arrived)?;
        Some(Recognised {
            fields: self.fields_of(arrived, &alike)?,
            length: alike.length,
            changed: alike.changed,
        })
    }

    /// Whether `arrived` begins with lines whose names and ends are those of these.
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

    /// The fields of lines like these; `None` = they have values that none may have.
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

/// Where the values are in the lines of `head` from `start` on.
fn places_of(head: &[u8], start: usize) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let mut at = start;
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

pub(super) fn line_end(text: &[u8]) -> Option<usize> {
    memchr(b'\n', text)
}
