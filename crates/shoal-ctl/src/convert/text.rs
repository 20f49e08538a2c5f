//! A text that is read character by character, and where its reader has come to.

use std::iter::Peekable;
use std::rc::Rc;
use std::str::Chars;

use super::directive::Place;

/// What is left of a text.
pub(super) struct Text<'a> {
    rest: Peekable<Chars<'a>>,
    place: Place,
}

impl<'a> Text<'a> {
    /// The whole of it, as it lies in `file`.
    pub(super) fn new(file: &Rc<str>, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest: text.chars().peekable(), place: Place { file: file.clone(), line: 1, column: 1 } }
    }

    /// Where the reader has come to.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The next character, which stays the next.
    pub(super) fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    /// All that comes, to look further ahead.
    pub(super) fn ahead(&self) -> Peekable<Chars<'a>> {
        self.rest.clone()
    }

    /// Passes over the next character.
    pub(super) fn take(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.place.line += 1;
            self.place.column = 1;
        } else {
            self.place.column += 1;
        }
        Some(c)
    }
}
