//! `Cache-Control` as it is written (RFC 9111 §5.2): forgiving to read, restrictive where it is in doubt.

use std::borrow::Cow;

use http::header::{
    CACHE_CONTROL, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PRAGMA,
};

/// The largest number of seconds that is kept (RFC 9111 §1.2.2).
pub const MAX_SECONDS: u32 = 1 << 31;

/// What a response says about its caching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Seconds; a value that is no number counts as 0.
    pub max_age: Option<u32>,
    /// Seconds, for shared caches.
    pub s_maxage: Option<u32>,
    /// Seconds (RFC 5861 §3).
    pub stale_while_revalidate: Option<u32>,
    /// Seconds (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// `no-store`
    pub no_store: bool,
    /// `public`
    pub public: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `no-cache`, whole or for some fields.
    pub no_cache: Extent,
    /// `private`, whole or for some fields.
    pub private: Extent,
}

/// What a directive with an optional list of fields covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// The directive is absent.
    #[default]
    Nothing,
    /// These fields of the response.
    Fields(Vec<HeaderName>),
    /// The whole response.
    Everything,
}

impl Extent {
    /// The fields, if it is only about fields.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Nothing | Self::Everything => &[],
        }
    }

    /// One more mention: lists add up, and the directive without a list covers everything.
    fn extend(&mut self, argument: Option<&[u8]>) {
        let Some(argument) = argument else {
            *self = Self::Everything;
            return;
        };
        let mut names = match std::mem::take(self) {
            Self::Everything => {
                *self = Self::Everything;
                return;
            }
            Self::Fields(names) => names,
            Self::Nothing => Vec::new(),
        };
        for name in
            argument.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
        {
            match HeaderName::from_bytes(name) {
                Ok(name) => names.push(name),
                Err(_) => {
                    *self = Self::Everything;
                    return;
                }
            }
        }
        // A list that names nothing is in doubt, hence everything.
        *self = if names.is_empty() { Self::Everything } else { Self::Fields(names) };
    }
}

impl Directives {
    /// Reads every `Cache-Control` line of a response.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut read = Self::default();
        for (name, argument) in
            fields.get_all(CACHE_CONTROL).iter().flat_map(|line| Members::of(line.as_bytes()))
        {
            read.take(&name.to_ascii_lowercase(), argument.as_deref());
        }
        read
    }

    /// Some lifetime is written: a past one counts too.
    pub const fn has_lifetime(&self) -> bool {
        self.max_age.is_some() || self.s_maxage.is_some()
    }

    /// Serving it stale is out of the question, connected or not (RFC 9111 §4.2.4).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache == Extent::Everything
    }

    fn take(&mut self, name: &[u8], argument: Option<&[u8]>) {
        // Duplicates: the first one counts.
        let seconds = |slot: &mut Option<u32>| {
            slot.get_or_insert(argument.and_then(delta_seconds).unwrap_or(0));
        };
        match name {
            b"max-age" => seconds(&mut self.max_age),
            b"s-maxage" => seconds(&mut self.s_maxage),
            b"stale-while-revalidate" => seconds(&mut self.stale_while_revalidate),
            b"stale-if-error" => seconds(&mut self.stale_if_error),
            b"no-store" => self.no_store = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-cache" => self.no_cache.extend(argument),
            b"private" => self.private.extend(argument),
            _ => {}
        }
    }
}

/// What a request asks of caches (RFC 9111 §5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Not older than this, seconds.
    pub max_age: Option<u32>,
    /// Stale by at most this, seconds; `u32::MAX` = by whatever.
    pub max_stale: Option<u32>,
    /// Fresh for at least this much longer, seconds.
    pub min_fresh: Option<u32>,
    /// Stale by at most this when the origin fails, seconds (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// Ask the origin first.
    pub no_cache: bool,
    /// Store nothing of this exchange.
    pub no_store: bool,
    /// Do not ask the origin.
    pub only_if_cached: bool,
}

impl Wishes {
    /// Reads every `Cache-Control` line of a request.
    pub fn read(fields: &HeaderMap) -> Self {
        let mut read = Self::default();
        for (name, argument) in
            fields.get_all(CACHE_CONTROL).iter().flat_map(|line| Members::of(line.as_bytes()))
        {
            let seconds = argument.as_deref().and_then(delta_seconds);
            match &*name.to_ascii_lowercase() {
                b"max-age" => read.max_age = read.max_age.or(seconds.or(Some(0))),
                b"max-stale" if argument.is_none() => read.max_stale = Some(u32::MAX),
                b"max-stale" => read.max_stale = read.max_stale.or(seconds),
                b"min-fresh" => read.min_fresh = read.min_fresh.or(seconds),
                b"stale-if-error" => read.stale_if_error = read.stale_if_error.or(seconds),
                b"no-cache" => read.no_cache = true,
                b"no-store" => read.no_store = true,
                b"only-if-cached" => read.only_if_cached = true,
                _ => {}
            }
        }
        read.no_cache &= !is_for_browser_cache(fields);
        read
    }
}

/// The `no-cache` is what `fetch` of browsers adds to a request whose caller has set a condition himself, so that the cache of
/// the browser keeps out of it (Fetch standard, HTTP-network-or-cache fetch): other caches are not meant.
fn is_for_browser_cache(fields: &HeaderMap) -> bool {
    let is_alone = |name| {
        let mut lines = fields.get_all(name).iter();
        lines.next().is_some_and(|line| line.as_bytes() == b"no-cache") && lines.next().is_none()
    };
    let has_condition =
        [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE].iter().any(|name| fields.contains_key(name));
    has_condition && is_alone(CACHE_CONTROL) && is_alone(PRAGMA)
}

/// A non-negative whole number of seconds, clamped to [`MAX_SECONDS`]; leading zeros do no harm.
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum = text.iter().fold(0u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')).min(u64::from(MAX_SECONDS))
    });
    u32::try_from(sum).ok()
}

/// `name`, `name=token`, `name="quoted"`, separated by commas; nothing is an error.
pub(super) struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    pub(super) const fn of(line: &'a [u8]) -> Self {
        Self { rest: line }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], Option<Cow<'a, [u8]>>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        self.rest = &self.rest[start..];
        let end = self.rest.iter().position(|byte| matches!(byte, b'=' | b',')).unwrap_or(self.rest.len());
        let name = self.rest[..end].trim_ascii();
        self.rest = &self.rest[end..];
        if self.rest.first() != Some(&b'=') {
            return Some((name, None));
        }
        self.rest = self.rest[1..].trim_ascii_start();
        let argument = if self.rest.first() == Some(&b'"') {
            Cow::Owned(self.take_quoted())
        } else {
            let end = self.rest.iter().position(|byte| *byte == b',').unwrap_or(self.rest.len());
            let token = self.rest[..end].trim_ascii();
            self.rest = &self.rest[end..];
            Cow::Borrowed(token)
        };
        Some((name, Some(argument)))
    }
}

impl Members<'_> {
    /// The text between the quotes, unescaped; whatever follows up to the next comma is skipped.
    fn take_quoted(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut bytes = self.rest.iter().enumerate().skip(1);
        let mut end = self.rest.len();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    end = at + 1;
                    break;
                }
                b'\\' => text.extend(bytes.next().map(|(_, escaped)| *escaped)),
                other => text.push(*other),
            }
        }
        self.rest = &self.rest[end..];
        let comma = self.rest.iter().position(|byte| *byte == b',').unwrap_or(self.rest.len());
        self.rest = &self.rest[comma..];
        text
    }
}
