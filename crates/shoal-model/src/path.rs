//! One canonical path for the route, the cache key and the forwarded request.

use std::borrow::Cow;

/// No path of a request: a broken escape, or a character that none may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPath;

/// The canonical form of `path`, borrowed if it is canonical already: unreserved escapes decoded, other escapes in
/// upper case, dot segments removed (RFC 3986 §6.2.2), empty segments kept, `%2F` and `%5C` never decoded.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, NoPath> {
    if is_plain(path)? {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    let clean = remove_dot_segments(&decoded);
    Ok(if clean == path { Cow::Borrowed(path) } else { Cow::Owned(clean) })
}

/// There is nothing in it that could need work. Errs on what no path may hold.
fn is_plain(path: &str) -> Result<bool, NoPath> {
    let mut plain = true;
    let mut previous = 0;
    for byte in path.bytes() {
        match byte {
            0..=0x20 | 0x7f | b'\\' | b'#' => return Err(NoPath),
            b'%' => plain = false,
            b'.' if previous == b'/' => plain = false,
            _ => {}
        }
        previous = byte;
    }
    Ok(plain)
}

fn decode_unreserved(path: &str) -> Result<String, NoPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, escaped)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits = escaped.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(NoPath)?;
        match byte {
            0 => return Err(NoPath),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(byte.into()),
            _ => {
                decoded.push('%');
                decoded.extend(escaped.chars().take(2).map(|digit| digit.to_ascii_uppercase()));
            }
        }
        rest = &escaped[2..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.split('/').skip(1) {
        ends_in_directory = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for segment in &kept {
        clean.push('/');
        clean.push_str(segment);
    }
    if ends_in_directory || kept.is_empty() {
        clean.push('/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths() {
        let check = |path: &str, expected: &str| {
            let seen = canonical_path(path).unwrap();
            assert_eq!(seen, expected, "{path}");
            assert_eq!(canonical_path(expected).unwrap(), expected, "canonical twice: {path}");
            assert_eq!(
                matches!(seen, Cow::Borrowed(_)),
                path == expected,
                "allocates only if it must: {path}"
            );
        };
        check("/", "/");
        check("/a/b.html", "/a/b.html");
        check("/a/.well-known/x", "/a/.well-known/x");
        check("/a/..b/...", "/a/..b/...");
        check("/a/./b", "/a/b");
        check("/a/../b", "/b");
        check("/a/..", "/");
        check("/a/b/.", "/a/b/");
        check("/../../etc", "/etc");
        check("/%2e%2E/x", "/x");
        check("/a%2fb%5C", "/a%2Fb%5C");
        check("/%41%7e%2D", "/A~-");
        check("//a///b", "//a///b");
        check("/a//../b", "/a/b");
        check("/a;v=1/..;/b", "/a;v=1/..;/b");
        check("/%c3%a9", "/%C3%A9");
    }

    #[test]
    fn refused_paths() {
        for path in ["/a\\b", "/a%0", "/a%zz", "/%00", "/a%", "/a b", "/a\tb", "/a#b", "/%é1"] {
            assert_eq!(canonical_path(path), Err(NoPath), "{path:?}");
        }
    }
}
