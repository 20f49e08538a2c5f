//! How names of fields are spelled: they mean the same in any case (RFC 9110 §5.1), and a map of them keeps none.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::Extensions;
use shoal_model::site::HeaderCase;

use super::known_lines::line_end;

/// How often the lines of a head are gone through at most: names of this node are in none of them.
const MAX_PASSES: usize = 24;

/// Field lines as whoever wrote a head has spelled the names in them; the values may be another head's. Goes with the head
/// as one of its extensions.
#[derive(Clone)]
pub struct WrittenLines(Bytes);

/// Never prints values: they are not this head's to tell.
impl fmt::Debug for WrittenLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrittenLines").field("bytes", &self.0.len()).finish()
    }
}

impl WrittenLines {
    /// Sees to it that `lines`, which were found to be good, go with a head.
    pub(super) fn attach(lines: &Bytes, extensions: &mut Extensions) {
        extensions.insert(Self(lines.clone()));
    }

    /// Where `name`, which is in lower case, stands between two places, and where the next line begins.
    fn find(&self, name: &str, between: Range<usize>) -> Option<(&[u8], usize)> {
        let mut at = between.start;
        while at < between.end {
            let line = &self.0[at..];
            let next = at + line_end(line).map_or(line.len(), |end| end + 1);
            if let Some((written, [b':', ..])) = line.split_at_checked(name.len())
                && written.eq_ignore_ascii_case(name.as_bytes())
            {
                return Some((written, next));
            }
            at = next;
        }
        None
    }
}

/// How names are to be spelled.
#[derive(Clone, Copy, Debug)]
pub enum Spelling<'a> {
    /// `content-type`.
    Lower,
    /// `Content-Type`.
    Title,
    /// As they came, and the others as titles.
    Written(&'a WrittenLines),
}

impl<'a> Spelling<'a> {
    /// By `case`, in a head with these extensions.
    pub fn of(case: HeaderCase, extensions: &'a Extensions) -> Self {
        match (case, extensions.get()) {
            (HeaderCase::Preserve, Some(lines)) => Self::Written(lines),
            _ => case.into(),
        }
    }
}

/// Spells the names of one head, best in the order of its lines: then each of them is looked at once.
pub(super) struct Speller<'a> {
    spelling: Spelling<'a>,
    /// Behind the name that was found last.
    at: usize,
    /// Bytes of lines that may still be looked at: whoever repeats names in an unhandy order gets titles in the end.
    left: usize,
}

impl<'a> Speller<'a> {
    /// At the beginning of a head.
    pub fn new(spelling: Spelling<'a>) -> Self {
        let left = match spelling {
            Spelling::Written(lines) => MAX_PASSES * lines.0.len(),
            Spelling::Lower | Spelling::Title => 0,
        };
        Self { spelling, at: 0, left }
    }

    /// Writes `name`, which is in lower case.
    pub fn write(&mut self, out: &mut Vec<u8>, name: &str) {
        match self.spelling {
            Spelling::Lower => out.extend_from_slice(name.as_bytes()),
            Spelling::Title => write_title(out, name),
            Spelling::Written(lines) => match self.find(lines, name) {
                Some(written) => out.extend_from_slice(written),
                None => write_title(out, name),
            },
        }
    }

    fn find(&mut self, lines: &'a WrittenLines, name: &str) -> Option<&'a [u8]> {
        let end = lines.0.len();
        for between in [self.at..end, 0..self.at] {
            if self.left == 0 {
                return None;
            }
            let found = lines.find(name, between.clone());
            let seen = found.map_or(between.end, |(_, next)| next) - between.start;
            self.left = self.left.saturating_sub(seen);
            if let Some((written, next)) = found {
                self.at = next;
                return Some(written);
            }
        }
        None
    }
}

/// Where nobody else has written them.
impl From<HeaderCase> for Spelling<'_> {
    fn from(case: HeaderCase) -> Self {
        match case {
            HeaderCase::Lower => Self::Lower,
            HeaderCase::Title | HeaderCase::Preserve => Self::Title,
        }
    }
}

/// Makes the first letter of each part of a name large.
fn write_title(out: &mut Vec<u8>, name: &str) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    for part in out[start..].split_mut(|byte| *byte == b'-') {
        part.iter_mut().take(1).for_each(u8::make_ascii_uppercase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(spelling: Spelling<'_>, names: &[&str]) -> String {
        let (mut out, mut speller) = (Vec::new(), Speller::new(spelling));
        for name in names {
            speller.write(&mut out, name);
            out.push(b' ');
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn titles() {
        let check = |name: &str, expected: &str| {
            assert_eq!(spelled(Spelling::Title, &[name]).trim_end(), expected);
            assert_eq!(spelled(Spelling::Lower, &[name]).trim_end(), name);
        };
        check("host", "Host");
        check("content-type", "Content-Type");
        check("www-authenticate", "Www-Authenticate");
        check("x--a-", "X--A-");
        check("-x", "-X");
        check("2x-_y", "2x-_y");
    }

    #[test]
    fn names_are_spelled_as_they_were() {
        let lines = "hOST: a\r\nETag: x-y: z\r\nX-ID:\r\nETAG: b\r\nx: y";
        let names = WrittenLines(Bytes::from_static(lines.as_bytes()));
        let check = |names_asked: &[&str], expected: &str| {
            assert_eq!(spelled(Spelling::Written(&names), names_asked).trim_end(), expected);
        };
        check(&["host", "etag", "x-id", "x"], "hOST ETag X-ID x");
        check(&["x", "x-id", "etag", "host"], "x X-ID ETAG hOST");
        check(&["etag", "etag", "etag"], "ETag ETAG ETag");
        check(&["x-y", "x-request-id", "hos", "host"], "X-Y X-Request-Id Hos hOST");
        let none = WrittenLines(Bytes::new());
        assert_eq!(spelled(Spelling::Written(&none), &["via"]), "Via ");
    }
    #[test]
    fn an_unhandy_order_costs_no_more_than_so_much() {
        let names: Vec<String> = (0..2_000).map(|n| format!("x-{n}")).collect();
        let text = names.iter().chain(&names).map(|name| format!("{}: y\r\n", name.to_uppercase()));
        let lines = WrittenLines(text.collect::<String>().into());
        let mut speller = Speller::new(Spelling::Written(&lines));
        let mut written = String::new();
        for name in names.iter().flat_map(|name| [name, name]) {
            let mut out = Vec::new();
            speller.write(&mut out, name);
            written.push(if out.starts_with(b"X-") { 'w' } else { '?' });
        }
        assert_eq!(speller.left, 0, "all that may be spent is spent");
        assert!(!written.contains('?'), "titles look the same here");
    }
}
