//! The target of a request that its type does not take as it is written.

use http::Uri;

use super::Unreadable;
use super::request_reader::MAX_TARGET_BYTES;

/// Reads `target` with what no query may hold, and others let pass there all the same, in escapes: `"`, `<` and `>`.
pub(super) fn read_escaped(target: &[u8]) -> Result<Uri, Unreadable> {
    let start = memchr::memchr(b'?', target).ok_or(Unreadable::Target)? + 1;
    let (path, query) = target.split_at(start);
    let mut escaped = path.to_vec();
    for byte in query {
        match byte {
            b'"' => escaped.extend(b"%22"),
            b'<' => escaped.extend(b"%3C"),
            b'>' => escaped.extend(b"%3E"),
            byte => escaped.push(*byte),
        }
    }
    if escaped.len() > MAX_TARGET_BYTES {
        return Err(Unreadable::TargetTooLong);
    }
    Uri::try_from(escaped).map_err(|_| Unreadable::Target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped_where_they_have_to_be() {
        let check = |target: &[u8], expected: Result<&str, Unreadable>| {
            let seen = read_escaped(target).map(|uri| uri.to_string());
            assert_eq!(seen, expected.map(str::to_owned), "{}", target.escape_ascii());
        };
        check(b"/a?\"b\"", Ok("/a?%22b%22"));
        check(b"/a?<b>?<c>&d=%3c", Ok("/a?%3Cb%3E?%3Cc%3E&d=%3c"));
        check(b"/a?{\"b\":`|^\\}", Ok("/a?{%22b%22:`|^\\}"));
        check(b"http://a/b?<c", Ok("http://a/b?%3Cc"));
        check(b"/a?\xe9", Err(Unreadable::Target));
        check("/a?<\u{e9}".as_bytes(), Ok("/a?%3C\u{e9}"));
        check(b"/<a>?b", Err(Unreadable::Target));
        check(b"/a`?b=<", Err(Unreadable::Target));
        check(b"/\xe9?b", Err(Unreadable::Target));
        check(b"/<a>", Err(Unreadable::Target));
        check(b"a?b", Err(Unreadable::Target));
        let long = [b"/?".to_vec(), b"<".repeat(MAX_TARGET_BYTES / 2)].concat();
        check(&long, Err(Unreadable::TargetTooLong));
    }
}
