//! The head of a request as it goes over the wire.

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use super::Spelling;
use super::spelling::Speller;

/// Bytes that a field takes up on average: a guess that saves growing.
pub(super) const FIELD_BYTES: usize = 48;
/// Bytes of a line beside name and value.
const FIELD_MARKS: usize = 4;

/// Appends the request line and the fields of `head` (RFC 9112 §3), the target in origin form, the names of the fields
/// spelled by `spelling`, and `more` field lines.
pub fn write_request_head(out: &mut Vec<u8>, head: &Parts, more: &[u8], spelling: Spelling<'_>) {
    out.reserve(FIELD_BYTES * (head.headers.len() + 2) + more.len());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, &head.headers, spelling);
    out.extend_from_slice(more);
    out.extend_from_slice(b"\r\n");
}

/// Appends the lines of `fields`, their names spelled by `spelling`.
pub fn write_fields<'a>(
    out: &mut Vec<u8>,
    fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    spelling: Spelling<'_>,
) {
    let mut speller = Speller::new(spelling);
    for (name, value) in fields {
        let (name, value) = (name.as_str(), value.as_bytes());
        // Once for all parts: what follows does not grow it.
        out.reserve(name.len() + value.len() + FIELD_MARKS);
        speller.write(out, name);
        write_value(out, value);
    }
}

/// Appends one field line, its name, which is in lower case, spelled by `spelling`.
pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8], spelling: Spelling<'_>) {
    out.reserve(name.len() + value.len() + FIELD_MARKS);
    Speller::new(spelling).write(out, name);
    write_value(out, value);
}

/// What follows a name. Neither part can have a line end in it: their types see to that.
fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
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
            write_request_head(&mut out, &head, b"y: 2\r\n", Spelling::Lower);
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
}
