//! What tells cached objects apart beside URL and route, compiled.

use http::HeaderName;

use crate::site::CacheKeyRule;

/// A compiled rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheKeyView {
    /// Which query parameters count.
    pub query: QueryView,
    /// Fields whose values tell objects apart.
    pub headers: Box<[HeaderName]>,
    /// Cookies whose values do.
    pub cookies: Box<[Box<str>]>,
}

/// Which query parameters count, and reach the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryView {
    /// All of them, as they are written.
    #[default]
    All,
    /// These.
    Only(Box<[NamePattern]>),
    /// All but these.
    Without(Box<[NamePattern]>),
}

/// A name, or how names begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This name.
    Exact(Box<str>),
    /// Every name that begins so.
    Prefix(Box<str>),
}

impl CacheKeyView {
    pub(super) fn compile(rule: Option<&CacheKeyRule>) -> Self {
        let Some(rule) = rule else { return Self::default() };
        let patterns = |names: &[String]| names.iter().map(|name| NamePattern::compile(name)).collect();
        Self {
            query: match (&rule.include_query, &rule.exclude_query) {
                (Some(names), _) => QueryView::Only(patterns(names)),
                (None, Some(names)) => QueryView::Without(patterns(names)),
                (None, None) => QueryView::All,
            },
            headers: field_names(&rule.headers),
            cookies: rule.cookies.iter().map(|name| name.as_str().into()).collect(),
        }
    }
}

impl NamePattern {
    fn compile(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(start) => Self::Prefix(start.into()),
            None => Self::Exact(text.into()),
        }
    }

    /// It means this name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(start) => name.starts_with(&**start),
        }
    }
}

/// Names of fields; a site with others is refused.
pub(super) fn field_names(names: &[String]) -> Box<[HeaderName]> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
