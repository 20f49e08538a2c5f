//! A line by a template.

use std::fmt::Write;

use shoal_model::is_deceptive;
use shoal_model::log_format::{LogField, LogPart};

/// The value of a field.
pub(crate) enum Value<'a> {
    Number(u64),
    /// `None` = it has none.
    Text(Option<&'a str>),
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text)
    }
}

/// The line of `parts` with the values of `value`.
pub(crate) fn fill<'a>(parts: &[LogPart], value: impl Fn(LogField) -> Value<'a>) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            LogPart::Text(text) => out.push_str(text),
            LogPart::Field(field) => match value(*field) {
                Value::Text(text) => write_text(text, &mut out),
                Value::Number(number) => {
                    let written = write!(out, "{number}");
                    // A string takes everything.
                    debug_assert!(written.is_ok());
                }
            },
        }
    }
    out
}

/// A value that cannot break its line, nor a quoted field of it.
fn write_text(value: Option<&str>, out: &mut String) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return out.push('-') };
    let mut utf8 = [0; 4];
    for c in value.chars() {
        if !is_deceptive(c) && !matches!(c, '"' | '\\') {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut utf8).bytes() {
            out.push_str("\\x");
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_their_line() {
        let check = |value: Option<&str>, expected: &str| {
            let mut out = String::new();
            write_text(value, &mut out);
            assert_eq!(out, expected);
        };
        check(None, "-");
        check(Some(""), "-");
        check(Some("/plain?a=é"), "/plain?a=é");
        check(Some("a\u{202e}b"), "a\\xE2\\x80\\xAEb");
        check(Some("a\n\"b\\\u{85}"), "a\\x0A\\x22b\\x5C\\xC2\\x85");
    }
}
