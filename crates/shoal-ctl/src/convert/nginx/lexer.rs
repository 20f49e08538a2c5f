//! The words of `nginx.conf`, as nginx itself cuts them.

use std::rc::Rc;

use crate::convert::directive::{Mistake, Place};
use crate::convert::text::Text;

/// A word, or what ends one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Without its quotes and escapes.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Cuts a text into words.
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

    /// The next token and its place; None at the end of the text.
    pub(super) fn next(&mut self) -> Result<Option<(Token, Place)>, Mistake> {
        self.skip_space();
        let place = self.text.place().clone();
        let token = match self.text.peek() {
            None => return Ok(None),
            Some(';') => self.sign(Token::End),
            Some('{') => self.sign(Token::Open),
            Some('}') => self.sign(Token::Close),
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some(_) => self.bare(),
        };
        Ok(Some((token, place)))
    }

    /// Passes over what is no configuration up to the `}` that closes it (Lua).
    pub(super) fn skip_block(&mut self) -> Result<(), Mistake> {
        let start = self.text.place().clone();
        let mut depth = 1_usize;
        while let Some(c) = self.text.take() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(Mistake::at(&start, "this block is never closed"))
    }

    fn sign(&mut self, token: Token) -> Token {
        self.text.take();
        token
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.text.peek() {
            if c == '#' {
                while self.text.take().is_some_and(|c| c != '\n') {}
            } else if is_space(c) {
                self.text.take();
            } else {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Token, Mistake> {
        let start = self.text.place().clone();
        self.text.take();
        let mut word = String::new();
        loop {
            match self.text.take() {
                None => return Err(Mistake::at(&start, format!("this {quote} is never closed"))),
                Some('\\') => self.escaped(&mut word),
                Some(c) if c == quote => break,
                Some(c) => word.push(c),
            }
        }
        match self.text.peek() {
            None | Some(';' | '{' | ')') => Ok(Token::Word(word)),
            Some(c) if is_space(c) => Ok(Token::Word(word)),
            Some(c) => Err(Mistake::at(self.text.place(), format!("unexpected {c:?} behind a quoted word"))),
        }
    }

    fn bare(&mut self) -> Token {
        let mut word = String::new();
        while let Some(c) = self.text.peek() {
            if is_space(c) || matches!(c, ';' | '{') {
                break;
            }
            self.text.take();
            match c {
                '\\' => self.escaped(&mut word),
                // `${name}` is a variable and begins no block.
                '$' if self.text.peek() == Some('{') => {
                    self.text.take();
                    word.push_str("${");
                }
                c => word.push(c),
            }
        }
        Token::Word(word)
    }

    /// What follows a backslash; what has no meaning to nginx keeps it, for regular expressions.
    fn escaped(&mut self, word: &mut String) {
        match self.text.take() {
            None => word.push('\\'),
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => word.extend(['\\', c]),
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as they are, signs as they are written, each with its place.
    fn tokens(text: &str) -> Result<Vec<String>, String> {
        let mut lexer = Lexer::new(&"t".into(), text);
        let mut seen = Vec::new();
        loop {
            match lexer.next().map_err(|mistake| mistake.to_string())? {
                None => return Ok(seen),
                Some((token, place)) => {
                    let shown = match token {
                        Token::Word(word) => format!("[{word}]"),
                        Token::End => ";".to_owned(),
                        Token::Open => "{".to_owned(),
                        Token::Close => "}".to_owned(),
                    };
                    seen.push(format!("{}:{} {shown}", place.line, place.column));
                }
            }
        }
    }

    #[test]
    fn words_are_cut_as_nginx_cuts_them() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(tokens(text), Ok(expected.iter().map(ToString::to_string).collect()), "{text}");
        };
        check("listen 80;", &["1:1 [listen]", "1:8 [80]", "1:10 ;"]);
        check("a {\n  b;\n}", &["1:1 [a]", "1:3 {", "2:3 [b]", "2:4 ;", "3:1 }"]);
        check("a# b\n;# c", &["1:1 [a#]", "1:4 [b]", "2:1 ;"]);
        check("a 'b c' \"d;\\\"{\";", &["1:1 [a]", "1:3 [b c]", "1:9 [d;\"{]", "1:16 ;"]);
        check("x ${a}b;", &["1:1 [x]", "1:3 [${a}b]", "1:8 ;"]);
        check(r"~ ^/a\.(b|c)$ {", &["1:1 [~]", r"1:3 [^/a\.(b|c)$]", "1:15 {"]);
        check(r#"x a"b\\;"#, &["1:1 [x]", r#"1:3 [a"b\]"#, "1:8 ;"]);
        check("é é;", &["1:1 [é]", "1:3 [é]", "1:4 ;"]);
        check("\u{feff}a;", &["1:1 [a]", "1:2 ;"]);
        check("", &[]);
        check("# only this", &[]);
        check("''", &["1:1 []"]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused_at_its_place() {
        let check = |text: &str, expected: &str| assert_eq!(tokens(text), Err(expected.to_owned()), "{text}");
        check("a\n  'b", "t:2:3: this ' is never closed");
        check("a \"b\"c;", "t:1:6: unexpected 'c' behind a quoted word");
    }
}
