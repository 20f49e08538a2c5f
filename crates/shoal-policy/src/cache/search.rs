//! Which parts of a query a response does not vary by: `No-Vary-Search` (draft-ietf-httpbis-no-vary-search).
//!
//! A rule speaks of all URLs of a path. Those that it makes equal share a key: that of the URL without the parameters that
//! do not count, and with the others in the order of their names where their order does not count. What is left stays as it
//! is spelt: URLs that are equal only once they are decoded keep keys of their own, which costs a fetch and mixes up nothing.

use std::borrow::Cow;

use http::header::HeaderName;

use super::fields::Fields;
use super::structured::{Item, read_dictionary};

/// The field.
pub static NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");
/// A rule that names more parameters is none.
pub const MAX_NAMES: usize = 64;

/// What of the query of a path does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRule {
    counted: Counted,
    order_counts: bool,
}

/// The parameters that count, by their decoded names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Counted {
    AllBut(Names),
    Only(Names),
}

type Names = Box<[Box<[u8]>]>;

impl SearchRule {
    /// The rule of a response (§4 of the draft). `None` = the whole query counts, as it does where there is a mistake.
    pub fn read(fields: &impl Fields) -> Option<Self> {
        let members = read_dictionary(fields, &NO_VARY_SEARCH)?;
        let member = |key| members.iter().find(|(name, _)| name == key).map(|(_, item)| item);
        let order_counts = match member("key-order") {
            None => true,
            Some(Item::Boolean(is_free)) => !is_free,
            Some(_) => return None,
        };
        let counted = match (member("params"), member("except")) {
            (None | Some(Item::Boolean(false)), None) => Counted::AllBut(Box::default()),
            (Some(Item::List(names)), None) => Counted::AllBut(read_names(names)?),
            (Some(Item::Boolean(true)), None) => Counted::Only(Box::default()),
            (Some(Item::Boolean(true)), Some(Item::List(names))) => Counted::Only(read_names(names)?),
            (Some(_), None) | (None | Some(_), Some(_)) => return None,
        };
        let says_nothing = order_counts && counted == Counted::AllBut(Box::default());
        (!says_nothing).then_some(Self { counted, order_counts })
    }

    /// Takes out of `url` what does not count: URLs that are the same then are equal.
    pub fn reduce(&self, url: &mut Vec<u8>) {
        let Some(mark) = memchr::memchr(b'?', url) else { return };
        let query = url.split_off(mark);
        let parameters = query[1..].split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty());
        let named = parameters.map(|parameter| (decoded_name(parameter), parameter));
        let mut counted: Vec<_> = named.filter(|(name, _)| self.counts(name)).collect();
        if !self.order_counts {
            // A stable sort: values of one name stay in their order.
            counted.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let mut separator = b'?';
        for (_, parameter) in counted {
            url.push(separator);
            url.extend_from_slice(parameter);
            separator = b'&';
        }
    }

    /// `url` is equal to one of which nothing is left to take out.
    pub fn reduces_to(&self, url: &[u8], reduced: &[u8]) -> bool {
        let mut url = url.to_vec();
        self.reduce(&mut url);
        url == reduced
    }

    /// Of the names in it, what they take.
    pub fn bytes(&self) -> usize {
        let (Counted::AllBut(names) | Counted::Only(names)) = &self.counted;
        names.iter().map(|name| size_of_val(name) + name.len()).sum()
    }

    fn counts(&self, name: &[u8]) -> bool {
        let is_listed = |names: &Names| names.iter().any(|known| **known == *name);
        match &self.counted {
            Counted::AllBut(names) => !is_listed(names),
            Counted::Only(names) => is_listed(names),
        }
    }
}

/// What rules are known by: the URL without its query.
pub fn path_of(url: &[u8]) -> &[u8] {
    &url[..memchr::memchr(b'?', url).unwrap_or(url.len())]
}

/// There is something that a rule may take out.
pub fn has_query(url: &[u8]) -> bool {
    path_of(url).len() < url.len()
}

fn read_names(items: &[Item]) -> Option<Names> {
    if items.len() > MAX_NAMES {
        return None;
    }
    let name = |item: &Item| match item {
        Item::Text(name) => Some(decoded(name.as_bytes()).into()),
        Item::Integer(_) | Item::Boolean(_) | Item::List(_) | Item::Other => None,
    };
    items.iter().map(name).collect()
}

fn decoded_name(parameter: &[u8]) -> Cow<'_, [u8]> {
    decoded(parameter.split(|byte| *byte == b'=').next().unwrap_or_default())
}

/// As forms write names: `+` is a space, and `%XX` a byte.
fn decoded(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(name);
    }
    let digit = |at: usize| name.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut text = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(byte) = name.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits are a byte.
                text.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => text.push(b' '),
            (byte, _, _) => text.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn rule(field: &str) -> Option<SearchRule> {
        let value = HeaderValue::from_str(field).unwrap();
        SearchRule::read(&HeaderMap::from_iter([(NO_VARY_SEARCH.clone(), value)]))
    }

    #[test]
    fn urls_that_are_equal_have_one_form() {
        for (field, url, reduced) in [
            ("key-order", "/x?b=2&a=1&b=1&a=0", "/x?a=1&a=0&b=2&b=1"),
            ("key-order", "/x?b&&a&", "/x?a&b"),
            ("key-order", "/x?%62=1&a=%31", "/x?a=%31&%62=1"),
            ("params", "/x?b=2&a=1", "/x"),
            ("params", "/x?", "/x"),
            ("params", "/x", "/x"),
            ("params=?1, future=1;x", "/x?a", "/x"),
            ("params=(\"a\")", "/x?a=1&b=2&a&c", "/x?b=2&c"),
            ("params=(\"a\")", "/x?%61=1&A=2", "/x?A=2"),
            ("params=(\"%C3%A9+x\" \"b\")", "/x?%c3%a9%20x=1&%C3%A9+x&b&c", "/x?c"),
            ("params=(\"a%zz\")", "/x?a%zz&a%25zz&b", "/x?b"),
            ("params, except=(\"page\")", "/x?page=2&evil=1&page=3", "/x?page=2&page=3"),
            ("params, except=(\"b\" \"a\"), key-order", "/x?b=1&c&a", "/x?a&b=1"),
            ("params, except=()", "/x?a", "/x"),
        ] {
            let mut text = url.as_bytes().to_vec();
            rule(field).unwrap().reduce(&mut text);
            assert_eq!(String::from_utf8(text).unwrap(), reduced, "{field}: {url}");
            assert!(rule(field).unwrap().reduces_to(url.as_bytes(), reduced.as_bytes()));
        }
    }

    #[test]
    fn a_mistake_means_that_everything_counts() {
        for field in [
            "",
            "unknown-key",
            "key-order=\"no\"",
            "key-order=?0",
            "params=\"a\"",
            "params=(a)",
            "params=(\"a\"), except=(\"x\")",
            "params=(), except=()",
            "params=()",
            "params=?0",
            "params=?0, except=(\"x\")",
            "params, except=(a)",
            "params, except=\"x\"",
            "params, except=?1",
            "except=(\"x\")",
            "Params",
            "params =?1",
            &format!("params=({})", "\"a\" ".repeat(MAX_NAMES + 1)),
        ] {
            assert_eq!(rule(field), None, "{field}");
        }
        assert_eq!(SearchRule::read(&HeaderMap::new()), None);
        assert!(rule(&format!("params=({})", "\"a\" ".repeat(MAX_NAMES))).is_some());
    }

    #[test]
    fn rules_are_known_by_the_path() {
        for (url, path) in [("http://a/x?b?c", "http://a/x"), ("http://a/x", "http://a/x")] {
            assert_eq!(path_of(url.as_bytes()), path.as_bytes());
            assert_eq!(has_query(url.as_bytes()), url != path);
        }
    }
}
