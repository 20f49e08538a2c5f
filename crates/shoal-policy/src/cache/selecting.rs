//! What of a request chose a variant of an object, and whether another request chooses it too (RFC 9111 §4.1).

use std::fmt;

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, HeaderMap, HeaderName};
use shoal_model::view::CacheKeyView;

/// Marks a cookie in the text of a [`Selector`]: no field name begins with it.
const COOKIE_MARK: char = '=';

/// A part of a request that chooses among variants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A field, as `Vary` nominates it or the route keys on it.
    Field(HeaderName),
    /// One cookie, where the route keys on it.
    Cookie(Box<str>),
}

impl Selector {
    /// What a route keys on.
    pub fn of_key(key: &CacheKeyView) -> Vec<Self> {
        let headers = key.headers.iter().cloned().map(Self::Field);
        headers.chain(key.cookies.iter().cloned().map(Self::Cookie)).collect()
    }

    /// Reads what [`Self`] is written as.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(COOKIE_MARK) {
            Some(name) => Some(Self::Cookie(name.into())),
            None => text.parse().ok().map(Self::Field),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name.as_str()),
            Self::Cookie(name) => write!(f, "{COOKIE_MARK}{name}"),
        }
    }
}

impl From<HeaderName> for Selector {
    fn from(name: HeaderName) -> Self {
        Self::Field(name)
    }
}

/// What chose a variant, with the values of the request it was made for, normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selecting(Box<[(Selector, FieldText)]>);

/// A normalised value; `None` = the request has none.
type FieldText = Option<Box<[u8]>>;

impl Selecting {
    /// What `request` has of `selectors`.
    pub fn of(selectors: &[Selector], request: &HeaderMap) -> Self {
        Self(selectors.iter().map(|selector| (selector.clone(), normalised(selector, request))).collect())
    }

    /// `request` chooses this variant. Absent matches only absent.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(selector, value)| normalised(selector, request) == *value)
    }

    /// What chooses, without the values.
    pub fn selectors(&self) -> Vec<Selector> {
        self.0.iter().map(|(selector, _)| selector.clone()).collect()
    }

    /// This field is one of those that choose.
    pub fn includes(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(selector, _)| matches!(selector, Selector::Field(field) if field == name))
    }

    /// Every request fits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Selectors and normalised values, to write them down elsewhere.
    pub fn parts(&self) -> impl Iterator<Item = (&Selector, Option<&[u8]>)> {
        self.0.iter().map(|(selector, value)| (selector, value.as_deref()))
    }

    /// What [`Self::parts`] gave out.
    pub fn from_parts(parts: impl Iterator<Item = (Selector, Option<Vec<u8>>)>) -> Self {
        Self(parts.map(|(selector, value)| (selector, value.map(Vec::into_boxed_slice))).collect())
    }
}

fn normalised(selector: &Selector, request: &HeaderMap) -> FieldText {
    match selector {
        Selector::Field(name) => normalised_field(name, request),
        Selector::Cookie(name) => cookie(name, request),
    }
}

/// All lines as one, without optional white space, and without differences that the field's definition makes none of.
fn normalised_field(name: &HeaderName, request: &HeaderMap) -> FieldText {
    let mut lines = request.get_all(name).iter().map(|line| line.as_bytes()).peekable();
    lines.peek()?;
    let joined = lines.collect::<Vec<_>>().join(&b","[..]);
    if joined.contains(&b'"') {
        return Some(joined.trim_ascii().into());
    }
    let members = joined.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_weighted = name == ACCEPT_LANGUAGE || name == ACCEPT_ENCODING;
    if !is_weighted {
        return Some(members.collect::<Vec<_>>().join(&b","[..]).into());
    }
    let mut members: Vec<Vec<u8>> =
        members.filter(|member| !member.is_empty()).map(weighted_member).collect();
    members.sort_unstable();
    members.dedup();
    Some(members.join(&b","[..]).into())
}

/// Lower case, no space inside, no `q=1`, which is the default, and codings by the names of today.
fn weighted_member(member: &[u8]) -> Vec<u8> {
    let mut parts = member.split(|byte| *byte == b';');
    let name = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    // RFC 9110 §8.4.1: the same, from before they were registered.
    let mut text = match &name[..] {
        b"x-gzip" => b"gzip".to_vec(),
        b"x-compress" => b"compress".to_vec(),
        _ => name,
    };
    for parameter in parts {
        let parameter: Vec<u8> =
            parameter.iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect();
        let Some(weight) = parameter.strip_prefix(b"q=") else {
            text.push(b';');
            text.extend_from_slice(&parameter);
            continue;
        };
        let weight = trim_weight(weight);
        if weight != b"1" {
            text.extend_from_slice(b";q=");
            text.extend_from_slice(weight);
        }
    }
    text
}

/// `0.50` is `0.5`, `1.000` is `1`.
fn trim_weight(weight: &[u8]) -> &[u8] {
    if !weight.contains(&b'.') {
        return weight;
    }
    let end = weight.iter().rposition(|byte| *byte != b'0').map_or(0, |at| at + 1);
    weight[..end].strip_suffix(b".").unwrap_or(&weight[..end])
}

/// The value of the first cookie with this name.
pub(super) fn cookie(name: &str, request: &HeaderMap) -> Option<Box<[u8]>> {
    let pairs = request.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let (found, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        (found.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
    });
    value.map(Into::into)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn request(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.clone(), HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn one_cookie_chooses_whatever_the_others_are() {
        let kind = Selector::parse("=kind").unwrap();
        assert_eq!(kind.to_string(), "=kind");
        let selecting = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| (COOKIE, *line)).collect();
            Selecting::of(std::slice::from_ref(&kind), &request(&lines))
        };
        assert_eq!(selecting(&["kind=a; x=1"]), selecting(&["x=2", "y; kind = a"]));
        assert_ne!(selecting(&["kind=a"]), selecting(&["kind=b"]));
        assert_ne!(selecting(&["kind="]), selecting(&[]));
        assert_eq!(selecting(&["Kind=a; kinds=b"]), selecting(&[]), "names of cookies differ by case");
    }

    #[test]
    fn what_is_written_is_read() {
        let selectors = [Selector::from(ACCEPT_LANGUAGE), Selector::Cookie("a=b".into())];
        for selector in &selectors {
            assert_eq!(Selector::parse(&selector.to_string()).as_ref(), Some(selector));
        }
        assert_eq!(Selector::parse("no name"), None);
    }
}
