//! How far an OPTIONS or TRACE may still go (RFC 9110 §7.6.2).

use http::header::{Entry, MAX_FORWARDS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Counts this hop; with other methods the field means nothing. Answers with what to say where the request ends here:
/// an OPTIONS has nothing more to learn, and a TRACE is not reflected, since it would show what this node adds.
pub fn take_hop(method: &Method, headers: &mut HeaderMap) -> Option<StatusCode> {
    let last = match *method {
        Method::OPTIONS => StatusCode::OK,
        Method::TRACE => StatusCode::NOT_IMPLEMENTED,
        _ => return None,
    };
    let Entry::Occupied(mut field) = headers.entry(MAX_FORWARDS) else { return None };
    // Not a number: nobody can say how far it was to go.
    let hops: u64 = field.get().to_str().ok()?.trim().parse().ok()?;
    if hops == 0 {
        return Some(last);
    }
    field.insert(HeaderValue::from(hops - 1));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_counted() {
        for (method, before, after) in [
            ("OPTIONS", "3", Ok("2")),
            ("OPTIONS", "1", Ok("0")),
            ("OPTIONS", "0", Err(StatusCode::OK)),
            ("TRACE", "0", Err(StatusCode::NOT_IMPLEMENTED)),
            ("TRACE", "7", Ok("6")),
            ("TRACE", "x", Ok("x")),
            ("OPTIONS", "-1", Ok("-1")),
            ("GET", "0", Ok("0")),
        ] {
            let mut headers = HeaderMap::from_iter([(MAX_FORWARDS, HeaderValue::from_static(before))]);
            let ends = take_hop(&method.parse().unwrap(), &mut headers);
            let seen = ends.map_or(Ok(headers[MAX_FORWARDS].to_str().unwrap()), Err);
            assert_eq!(seen, after, "{method} {before}");
        }
        assert_eq!(take_hop(&Method::OPTIONS, &mut HeaderMap::new()), None);
    }
}
