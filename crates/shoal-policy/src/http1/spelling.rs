//! How names of fields are spelled: they mean the same in any case (RFC 9110 §5.1), and a map of them keeps none.

use bytes::Bytes;
use http::Extensions;
use shoal_model::site::HeaderCase;

use super::known_lines::line_end;

/// How whoever wrote a head has spelled the names in it. Goes with the head as one of its extensions.
#[derive(Clone, Debug)]
pub struct WrittenNames(Bytes);

impl WrittenNames {
    /// In these lines, which were found to be good.
    pub(super) fn of(lines: Bytes) -> Self {
        Self(lines)
    }

    /// How `name`, which is in lower case, was spelled. It is looked for from `at` on, which then is behind it: whoever asks
    /// in the order of the lines looks at each of them once.
    fn find(&self, name: &str, at: &mut usize) -> Option<&[u8]> {
        let start = *at;
        let (found, next) = self.search(name, start, self.0.len()).or_else(|| self.search(name, 0, start))?;
        *at = next;
        Some(found)
    }

    fn search(&self, name: &str, mut at: usize, end: usize) -> Option<(&[u8], usize)> {
        while at < end {
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
    Written(&'a WrittenNames),
}

impl<'a> Spelling<'a> {
    /// By `case`, in a head with these extensions.
    pub fn of(case: HeaderCase, extensions: &'a Extensions) -> Self {
        match (case, extensions.get()) {
            (HeaderCase::Preserve, Some(names)) => Self::Written(names),
            _ => case.into(),
        }
    }

    /// Spells `name`, which is in lower case. `at`: 0 for the first name of a head, and else what the one before it left.
    pub(super) fn write(self, out: &mut Vec<u8>, name: &str, at: &mut usize) {
        match self {
            Self::Lower => out.extend_from_slice(name.as_bytes()),
            Self::Title => write_title(out, name),
            Self::Written(names) => match names.find(name, at) {
                Some(written) => out.extend_from_slice(written),
                None => write_title(out, name),
            },
        }
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
        let (mut out, mut at) = (Vec::new(), 0);
        for name in names {
            spelling.write(&mut out, name, &mut at);
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
        let names = WrittenNames::of(Bytes::from_static(lines.as_bytes()));
        let check = |names_asked: &[&str], expected: &str| {
            assert_eq!(spelled(Spelling::Written(&names), names_asked).trim_end(), expected);
        };
        check(&["host", "etag", "x-id", "x"], "hOST ETag X-ID x");
        check(&["x", "x-id", "etag", "host"], "x X-ID ETAG hOST");
        check(&["etag", "etag", "etag"], "ETag ETAG ETag");
        check(&["x-y", "x-request-id", "hos", "host"], "X-Y X-Request-Id Hos hOST");
        let none = WrittenNames::of(Bytes::new());
        assert_eq!(spelled(Spelling::Written(&none), &["via"]), "Via ");
    }
}
