//! The text around the parts of an answer to a request for several ranges (RFC 9110 §14.6).

use std::fmt::Write;

use http::header::HeaderValue;

use super::content_range::ContentRange;

/// An answer in several parts.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    /// Of the representation the parts are of, if it has one.
    content_type: Option<HeaderValue>,
}

impl Multipart {
    /// `entropy` makes the boundary one that nobody can have put into the content.
    pub fn new(entropy: [u64; 2], content_type: Option<HeaderValue>) -> Self {
        Self { boundary: format!("shoal{:016x}{:016x}", entropy[0], entropy[1]), content_type }
    }

    /// The `Content-Type` of the whole answer.
    pub fn content_type(&self) -> HeaderValue {
        let text = format!("multipart/byteranges; boundary={}", self.boundary);
        // The boundary is hexadecimal.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("multipart/byteranges"))
    }

    /// What goes before the bytes of a part.
    pub fn opening(&self, range: ContentRange, is_first: bool) -> Vec<u8> {
        let mut text = String::with_capacity(160);
        if !is_first {
            text.push_str("\r\n");
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "--{}\r\n", self.boundary);
        let mut bytes = text.into_bytes();
        if let Some(content_type) = &self.content_type {
            bytes.extend_from_slice(b"Content-Type: ");
            bytes.extend_from_slice(content_type.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("Content-Range: {range}\r\n\r\n").as_bytes());
        bytes
    }

    /// What goes behind the last part.
    pub fn closing(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::Span;
    use super::*;

    #[test]
    fn parts_lie_between_boundaries() {
        let parts = Multipart::new([1, 2], Some(HeaderValue::from_static("text/plain")));
        let range = |first, last| ContentRange { span: Span { first, last }, length: Some(10) };
        let text = [
            parts.opening(range(0, 1), true),
            b"ab".to_vec(),
            parts.opening(range(8, 8), false),
            b"i".to_vec(),
            parts.closing(),
        ]
        .concat();
        let boundary = "shoal00000000000000010000000000000002";
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\nab\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-8/10\r\n\r\ni\r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(parts.content_type(), format!("multipart/byteranges; boundary={boundary}"));
    }
}
