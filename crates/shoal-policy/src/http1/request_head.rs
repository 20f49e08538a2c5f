//! The head of a request as it goes over the wire.

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use shoal_model::site::HeaderCase;

/// Bytes that a field takes up on average: a guess that saves growing.
pub(super) const FIELD_BYTES: usize = 48;

/// Appends the request line and the fields of `head` (RFC 9112 §3), the target in origin form, the names of the fields
/// spelled by `case`, and `more` field lines.
pub fn write_request_head(out: &mut Vec<u8>, head: &Parts, more: &[u8], case: HeaderCase) {
    out.reserve(FIELD_BYTES * (head.headers.len() + 2) + more.len());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, &head.headers, case);
    out.extend_from_slice(more);
    out.extend_from_slice(b"\r\n");
}

/// Appends the lines of `fields`, their names spelled by `case`.
pub fn write_fields<'a>(
    out: &mut Vec<u8>,
    fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    case: HeaderCase,
) {
    for (name, value) in fields {
        write_field(out, name.as_str(), value.as_bytes(), case);
    }
}

/// Appends one field line, its name, which is in lower case, spelled by `case`. Neither part can have a line end in it: their
/// types see to that.
pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8], case: HeaderCase) {
    // Once for all parts: what follows does not grow it.
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    if case == HeaderCase::Title {
        let start = out.len() - name.len();
        capitalize(&mut out[start..]);
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Makes the first letter of each part of a name large.
fn capitalize(name: &mut [u8]) {
    for part in name.split_mut(|byte| *byte == b'-') {
        part.iter_mut().take(1).for_each(u8::make_ascii_uppercase);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn targets_are_in_origin_form() {
        let check = |method: &str, target: &str, expected: &str| {
            let request =
                Request::builder().method(method).uri(target).header("host", "a").header("x", "1, 2");
            let (head, ()) = request.body(()).unwrap().into_parts();
            let mut out = Vec::new();
            write_request_head(&mut out, &head, b"y: 2\r\n", HeaderCase::Lower);
            let text = format!("{expected} HTTP/1.1\r\nhost: a\r\nx: 1, 2\r\ny: 2\r\n\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), text);
        };
        check("GET", "/", "GET /");
        check("GET", "/a/b?c=d", "GET /a/b?c=d");
        check("GET", "http://b.example/a?c", "GET /a?c");
        check("GET", "http://b.example", "GET /");
        check("OPTIONS", "*", "OPTIONS *");
        check("PROPFIND", "/a", "PROPFIND /a");
    }

    #[test]
    fn names_have_capitals_where_they_shall() {
        let check = |name: &str, expected: &str| {
            let (head, ()) = Request::builder().header(name, "a-b").body(()).unwrap().into_parts();
            let mut out = Vec::new();
            write_request_head(&mut out, &head, b"", HeaderCase::Title);
            let text = format!("GET / HTTP/1.1\r\n{expected}: a-b\r\n\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), text);
        };
        check("host", "Host");
        check("content-type", "Content-Type");
        check("www-authenticate", "Www-Authenticate");
        check("x--a-", "X--A-");
        check("-x", "-X");
        check("2x-_y", "2x-_y");
    }
}
