//! Which request fields choose among the variants of an object (RFC 9111 §4.1).

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, HeaderMap, HeaderName, USER_AGENT, VARY};

/// A response that varies over more fields than this is not stored.
pub const MAX_VARY_FIELDS: usize = 8;

/// What `Vary` says, all lines together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// These fields choose, in the order of their names; none = every request fits.
    Fields(Vec<HeaderName>),
    /// `*`, something that is no field name, or too much: no other request ever fits.
    Anything,
}

impl Vary {
    /// Reads every `Vary` line.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for member in fields.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(member) {
                Ok(name) if name != "*" => names.push(name),
                Ok(_) | Err(_) => return Self::Anything,
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > MAX_VARY_FIELDS { Self::Anything } else { Self::Fields(names) }
    }

    /// Nearly every request has another value of these: storing the variants would be in vain.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Anything => true,
            Self::Fields(names) => names.iter().any(|name| name == COOKIE || name == USER_AGENT),
        }
    }
}

/// The fields that chose a variant, with the values of the request it was made for, normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selecting(Box<[(HeaderName, FieldText)]>);

/// A normalised field; `None` = the request has none.
type FieldText = Option<Box<[u8]>>;

impl Selecting {
    /// What `request` has in the fields `names`.
    pub fn of(names: &[HeaderName], request: &HeaderMap) -> Self {
        Self(names.iter().map(|name| (name.clone(), normalised(name, request))).collect())
    }

    /// `request` chooses this variant. Absent matches only absent.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| normalised(name, request) == *value)
    }

    /// The fields, without their values.
    pub fn names(&self) -> Vec<HeaderName> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Every request fits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and normalised values, to write them down elsewhere.
    pub fn parts(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// What [`Self::parts`] gave out.
    pub fn from_parts(parts: impl Iterator<Item = (HeaderName, Option<Vec<u8>>)>) -> Self {
        Self(parts.map(|(name, value)| (name, value.map(Vec::into_boxed_slice))).collect())
    }

    /// Appends names and values, unmistakably: the text that tells one variant's fill from another's.
    pub fn write_to(&self, text: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            text.push(b'\n');
            text.extend_from_slice(name.as_str().as_bytes());
            if let Some(value) = value {
                text.push(b':');
                text.extend_from_slice(value);
            }
        }
    }
}

/// All lines as one, without optional white space, and without differences that the field's definition makes none of.
fn normalised(name: &HeaderName, request: &HeaderMap) -> FieldText {
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
    Some(members.join(&b","[..]).into())
}

/// Lower case, no space inside, and no `q=1`, which is the default.
fn weighted_member(member: &[u8]) -> Vec<u8> {
    let mut parts = member.split(|byte| *byte == b';');
    let mut text = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
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
