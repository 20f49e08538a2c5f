//! The words of a Caddyfile, line by line.

use std::rc::Rc;

use crate::convert::directive::{Mistake, Place};
use crate::convert::text::Text;

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without its quotes.
    pub(super) text: String,
    /// It is no sign, whatever it looks like.
    pub(super) is_quoted: bool,
    pub(super) place: Place,
}

/// Cuts a text into lines of words.
pub(super) struct Lexer<'a> {
    text: Text<'a>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(file: &Rc<str>, text: &'a str) -> Self {
        Self { text: Text::new(file, text) }
    }

    /// Where it has come to.
    pub(super) fn place(&self) -> &Place {
        self.text.place()
    }

    /// The words of the next line that has any; none at the end of the text.
    pub(super) fn line(&mut self) -> Result<Vec<Word>, Mistake> {
        let mut words = Vec::new();
        loop {
            match self.text.peek() {
                None => return Ok(words),
                Some('\n') => {
                    self.text.take();
                    if !words.is_empty() {
                        return Ok(words);
                    }
                }
                Some('#') => {
                    while self.text.peek().is_some_and(|c| c != '\n') {
                        self.text.take();
                    }
                }
                Some(c) if c.is_whitespace() => {
                    self.text.take();
                }
                Some('\\') if self.continues() => {}
                Some(_) => words.push(self.word()?),
            }
        }
    }

    /// Passes over a backslash at the end of a line, which goes on in the next.
    fn continues(&mut self) -> bool {
        let mut ahead = self.text.ahead();
        ahead.next();
        while ahead.next_if_eq(&'\r').is_some() {}
        if ahead.next() != Some('\n') {
            return false;
        }
        while self.text.take() != Some('\n') {}
        true
    }

    fn word(&mut self) -> Result<Word, Mistake> {
        let place = self.text.place().clone();
        let quote = self.text.peek().filter(|c| matches!(c, '"' | '`'));
        let Some(quote) = quote else {
            let mut text = String::new();
            while self.text.peek().is_some_and(|c| !c.is_whitespace()) {
                text.extend(self.text.take());
            }
            if let Some(marker) = text.strip_prefix("<<").filter(|marker| is_marker(marker)) {
                let text = self.here_document(marker, &place)?;
                return Ok(Word { text, is_quoted: true, place });
            }
            return Ok(Word { text, is_quoted: false, place });
        };
        self.text.take();
        let mut text = String::new();
        loop {
            match self.text.take() {
                None => return Err(Mistake::at(&place, format!("this {quote} is never closed"))),
                Some(c) if c == quote => return Ok(Word { text, is_quoted: true, place }),
                // Only quotes are escaped; a backslash before anything else is one.
                Some('\\') if quote == '"' && self.text.peek() == Some('"') => text.extend(self.text.take()),
                Some(c) => text.push(c),
            }
        }
    }

    /// The lines up to one that has nothing but `marker`.
    fn here_document(&mut self, marker: &str, place: &Place) -> Result<String, Mistake> {
        while self.text.peek().is_some_and(|c| c != '\n') {
            self.text.take();
        }
        self.text.take();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            while self.text.peek().is_some_and(|c| c != '\n') {
                // Words may follow the marker.
                if line.trim_start() == marker {
                    break;
                }
                line.extend(self.text.take());
            }
            if line.trim() == marker {
                return Ok(lines.join("\n"));
            }
            lines.push(line);
            if self.text.take().is_none() {
                return Err(Mistake::at(place, format!("there is no {marker} that ends this text")));
            }
        }
    }
}

fn is_marker(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of words, in brackets when they are quoted, with the place of the first.
    fn lines(text: &str) -> Result<Vec<String>, String> {
        let mut lexer = Lexer::new(&"t".into(), text);
        let mut seen = Vec::new();
        loop {
            let words = lexer.line().map_err(|mistake| mistake.to_string())?;
            let Some(first) = words.first() else { return Ok(seen) };
            let mut line = format!("{}:{}", first.place.line, first.place.column);
            for word in &words {
                match word.is_quoted {
                    true => line.push_str(&format!(" [{}]", word.text)),
                    false => line.push_str(&format!(" {}", word.text)),
                }
            }
            seen.push(line);
        }
    }

    #[test]
    fn lines_are_cut_as_caddy_cuts_them() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(lines(text), Ok(expected.iter().map(ToString::to_string).collect()), "{text}");
        };
        check("a b {\n  c\n}\n", &["1:1 a b {", "2:3 c", "3:1 }"]);
        check("# no\n\n a#b # c\n", &["3:2 a#b"]);
        check("a \"b \\\" c\" `d \\\"`", &["1:1 a [b \" c] [d \\\"]"]);
        check("a \\\n  b\nc", &["1:1 a b", "3:1 c"]);
        check("respond <<END\n  one\n  two\n  END 200\nx", &["1:1 respond [  one\n  two] 200", "5:1 x"]);
        check("a \"{\"", &["1:1 a [{]"]);
        check("", &[]);
        check("a\r\nb\r\n", &["1:1 a", "2:1 b"]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused_at_its_place() {
        let check = |text: &str, expected: &str| assert_eq!(lines(text), Err(expected.to_owned()), "{text}");
        check("a\n  \"b", "t:2:3: this \" is never closed");
        check("a <<END\nb\n", "t:1:3: there is no END that ends this text");
    }
}
