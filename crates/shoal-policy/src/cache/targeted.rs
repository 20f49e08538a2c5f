//! Targeted cache control (RFC 9213): fields for caches like ours alone, in the strict syntax of Structured Fields.

use http::header::{HeaderMap, HeaderName};

use super::directives::{Directives, Extent, MAX_SECONDS};

/// Our target list: the first usable field decides (RFC 9213 §2.2).
static TARGETS: [HeaderName; 2] =
    [HeaderName::from_static("shoal-cache-control"), HeaderName::from_static("cdn-cache-control")];

/// What the first usable targeted field says; `None` = there is none, and `Cache-Control` counts.
pub fn read_targeted(fields: &HeaderMap) -> Option<Directives> {
    TARGETS.iter().find_map(|name| {
        let mut lines = fields.get_all(name).iter().map(|line| line.as_bytes());
        let first = lines.next()?;
        let mut joined = first.to_vec();
        for line in lines {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(line);
        }
        read_dictionary(&joined)
    })
}

/// A syntax error, an empty field or a known directive of the wrong type makes all of it unusable.
fn read_dictionary(text: &[u8]) -> Option<Directives> {
    let mut parser = Parser { rest: text.trim_ascii() };
    let mut members: Vec<(&[u8], Item)> = Vec::new();
    loop {
        let key = parser.key()?;
        let item = parser.member_value()?;
        parser.parameters()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, item));
        parser.skip_space();
        if parser.rest.is_empty() {
            break;
        }
        parser.expect(b',')?;
        parser.skip_space();
    }
    directives(&members)
}

fn directives(members: &[(&[u8], Item)]) -> Option<Directives> {
    let mut read = Directives::default();
    for (key, item) in members {
        match *key {
            b"max-age" => read.max_age = Some(item.seconds()?),
            b"s-maxage" => read.s_maxage = Some(item.seconds()?),
            b"stale-while-revalidate" => read.stale_while_revalidate = Some(item.seconds()?),
            b"stale-if-error" => read.stale_if_error = Some(item.seconds()?),
            b"no-store" => read.no_store = item.flag()?,
            b"public" => read.public = item.flag()?,
            b"must-revalidate" => read.must_revalidate = item.flag()?,
            b"proxy-revalidate" => read.proxy_revalidate = item.flag()?,
            b"must-understand" => read.must_understand = item.flag()?,
            b"no-cache" => read.no_cache = item.extent()?,
            b"private" => read.private = item.extent()?,
            _ => {}
        }
    }
    Some(read)
}

/// A value, as far as directives care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Integer(i64),
    Boolean(bool),
    Text,
    Other,
}

impl Item {
    fn seconds(self) -> Option<u32> {
        match self {
            Self::Integer(value) => Some(value.clamp(0, i64::from(MAX_SECONDS)) as u32),
            Self::Boolean(_) | Self::Text | Self::Other => None,
        }
    }

    const fn flag(self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(value),
            Self::Integer(_) | Self::Text | Self::Other => None,
        }
    }

    /// A list of fields is taken for the whole response: the stricter reading.
    const fn extent(self) -> Option<Extent> {
        match self {
            Self::Boolean(true) | Self::Text => Some(Extent::Everything),
            Self::Boolean(false) => Some(Extent::Nothing),
            Self::Integer(_) | Self::Other => None,
        }
    }
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

    fn member_value(&mut self) -> Option<Item> {
        if !self.accept(b'=') {
            return Some(Item::Boolean(true));
        }
        if self.accept(b'(') { self.inner_list() } else { self.bare_item() }
    }

    fn inner_list(&mut self) -> Option<Item> {
        loop {
            self.take_while(|byte| byte == b' ');
            if self.accept(b')') {
                return Some(Item::Other);
            }
            self.bare_item()?;
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
        loop {
            match self.take()? {
                b'"' => return Some(Item::Text),
                b'\\' => {
                    if !matches!(self.take()?, b'"' | b'\\') {
                        return None;
                    }
                }
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }
}
