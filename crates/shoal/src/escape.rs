//! Log lines go to stderr with every control character escaped, and what turns the direction of text: what the network sent
//! can neither drive a terminal nor pass for something else.

use std::fmt::Write as _;
use std::io::{self, Write};

use shoal_model::is_deceptive;

/// Stderr for the log.
pub fn stderr() -> impl Write {
    Escaped(io::stderr())
}

/// Writes each line whole; the subscriber hands over one event per write.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        if body.chars().any(is_deceptive) {
            let mut escaped = String::with_capacity(text.len() + 16);
            for c in body.chars() {
                if is_deceptive(c) {
                    _ = write!(escaped, "{}", c.escape_default());
                } else {
                    escaped.push(c);
                }
            }
            escaped.push('\n');
            self.0.write_all(escaped.as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (line, expected) in [
            ("INFO plain ü\n", "INFO plain ü\n"),
            ("a\u{1b}[31mb\n", "a\\u{1b}[31mb\n"),
            ("two\nlines\r\n", "two\\nlines\\r\n"),
            ("c1 \u{9b}31m\n", "c1 \\u{9b}31m\n"),
            ("ab\u{202e}cd\n", "ab\\u{202e}cd\n"),
        ] {
            let mut written = Vec::new();
            assert_eq!(Escaped(&mut written).write(line.as_bytes()).unwrap(), line.len());
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}
