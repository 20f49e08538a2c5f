//! A line as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use shoal_model::is_deceptive;

/// `line` as one line of JSON, which does no harm where it is shown.
pub(crate) fn to_json(line: &impl Serialize) -> String {
    let mut out = Vec::new();
    let written = line.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Harmless));
    // A vector takes everything, and a line has no keys but texts.
    debug_assert!(written.is_ok());
    String::from_utf8(out).unwrap_or_default()
}

/// Writes what JSON leaves as it is and a terminal does not as `\u…`.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_deceptive(*c)) {
            CompactFormatter.write_string_fragment(out, &rest[..at])?;
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(out, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_escaped() {
        let check = |text: &str, expected: &str| {
            let line = to_json(&text);
            assert_eq!(line, expected);
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        };
        check("", r#""""#);
        check("/plain?a=é\"", r#""/plain?a=é\"""#);
        check("a\u{1b}[31m\n", r#""a\u001b[31m\n""#);
        check("\u{7f}\u{85}\u{9b}31m", r#""\u007f\u0085\u009b31m""#);
        check("a\u{202e}b\u{2066}", r#""a\u202eb\u2066""#);
    }
}
