//! How long the body of a message is (RFC 9112 §6.3).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};

/// How the body of a message is told from what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// Why two recipients could see bodies of different length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// `Transfer-Encoding` is not exactly one `chunked`, or not on HTTP/1.1.
    Coding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    CodingAndLength,
    /// `Content-Length` is repeated, a list, or no plain number.
    Length,
}

/// Of a request with these fields.
///
/// # Errors
/// It is not beyond doubt.
pub fn request_framing(version: Version, headers: &HeaderMap) -> Result<Framing, Ambiguous> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return match length {
            _ if version != Version::HTTP_11 || !is_chunked || codings.next().is_some() => {
                Err(Ambiguous::Coding)
            }
            Some(_) => Err(Ambiguous::CodingAndLength),
            None => Ok(Framing::Chunked),
        };
    }
    let Some(length) = length else { return Ok(Framing::Empty) };
    match plain_number(length) {
        Some(length) if lengths.next().is_none() => Ok(Framing::Length(length)),
        _ => Err(Ambiguous::Length),
    }
}

/// Digits and nothing else.
pub(crate) fn plain_number(value: &HeaderValue) -> Option<u64> {
    let add = |number: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    };
    let digits = value.as_bytes();
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(plain_number(&HeaderValue::from_str(text).unwrap()), expected, "{text:?}");
        };
        check("0", Some(0));
        check("007", Some(7));
        check("18446744073709551615", Some(u64::MAX));
        check("18446744073709551616", None);
        for text in ["", "+1", "-1", "1, 1", "1 ", "0x1", "1.0"] {
            check(text, None);
        }
    }
}
