//! Structured Fields (RFC 9651): dictionaries and lists, as strict as they are.

use http::header::{HeaderMap, HeaderName};

use super::fields::Fields;

/// A dictionary with more members than this is one with a mistake in it: nobody has a use for them.
const MAX_MEMBERS: usize = 512;

/// A value, as far as anybody here cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Integer(i64),
    Boolean(bool),
    Text(String),
    /// An inner list.
    List(Vec<Item>),
    Other,
}

/// The members of a dictionary, all lines together; the last one of a name counts. `None` = there is none, it is empty, or
/// there is a mistake anywhere in it.
pub(super) fn read_dictionary(fields: &impl Fields, name: &HeaderName) -> Option<Vec<(String, Item)>> {
    let text = joined(fields, name)?;
    let mut parser = Parser { rest: text.trim_ascii() };
    let mut members: Vec<(String, Item)> = Vec::new();
    loop {
        let key = String::from_utf8_lossy(parser.key()?).into_owned();
        let item = match parser.accept(b'=') {
            true => parser.member()?,
            false => Item::Boolean(true),
        };
        parser.parameters()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, item));
        if parser.is_over()? {
            return Some(members);
        }
        if members.len() >= MAX_MEMBERS {
            return None;
        }
    }
}

/// The members of a list, all lines together, however many they are: only the length of a head bounds them, and who leaves
/// one out does not do what it says. `None` as for [`read_dictionary`].
pub(super) fn read_list(fields: &HeaderMap, name: &HeaderName) -> Option<Vec<Item>> {
    let text = joined(fields, name)?;
    let mut parser = Parser { rest: text.trim_ascii() };
    let mut members = Vec::new();
    loop {
        members.push(parser.member()?);
        parser.parameters()?;
        if parser.is_over()? {
            return Some(members);
        }
    }
}

fn joined(fields: &impl Fields, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = fields.lines_of(name);
    let mut joined = lines.next()?.to_vec();
    for line in lines {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line);
    }
    Some(joined)
}

/// RFC 9651 §4.2, without keeping what nobody reads.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.take()? == byte).then_some(())
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.rest.first(), Some(b' ' | b'\t')) {
            self.rest = &self.rest[1..];
        }
    }

    fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !keep(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.rest.first(), Some(b'a'..=b'z' | b'*')) {
            return None;
        }
        Some(self.take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    fn member(&mut self) -> Option<Item> {
        if self.accept(b'(') { self.inner_list() } else { self.bare_item() }
    }

    /// Behind a member there is the end, or a comma and one more.
    fn is_over(&mut self) -> Option<bool> {
        self.skip_space();
        if self.rest.is_empty() {
            return Some(true);
        }
        self.expect(b',')?;
        self.skip_space();
        Some(false)
    }

    fn inner_list(&mut self) -> Option<Item> {
        let mut items = Vec::new();
        loop {
            self.take_while(|byte| byte == b' ');
            if self.accept(b')') {
                return Some(Item::List(items));
            }
            items.push(self.bare_item()?);
            self.parameters()?;
            if !matches!(self.rest.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.accept(b';') {
            self.take_while(|byte| byte == b' ');
            self.key()?;
            if self.accept(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<Item> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'@' => {
                self.take();
                self.number().filter(|item| matches!(item, Item::Integer(_))).map(|_| Item::Other)
            }
            b'"' => self.string(),
            b':' => {
                self.take();
                self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                self.expect(b':').map(|()| Item::Other)
            }
            b'?' => {
                self.take();
                match self.take()? {
                    b'1' => Some(Item::Boolean(true)),
                    b'0' => Some(Item::Boolean(false)),
                    _ => None,
                }
            }
            first if first.is_ascii_alphabetic() || *first == b'*' => {
                self.take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    /// At most 15 digits, or 12 before and 3 after the point.
    fn number(&mut self) -> Option<Item> {
        let negative = self.accept(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if whole.is_empty() {
            return None;
        }
        if self.accept(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            return (whole.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Item::Other);
        }
        if whole.len() > 15 {
            return None;
        }
        let value = whole.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(if negative { -value } else { value }))
    }

    fn string(&mut self) -> Option<Item> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            match self.take()? {
                b'"' => return Some(Item::Text(text)),
                b'\\' => match self.take()? {
                    escaped @ (b'"' | b'\\') => text.push(char::from(escaped)),
                    _ => return None,
                },
                byte @ b' '..=b'~' => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }
}
