//! Session persistence, with the cookie's attributes written out.

use std::time::Duration;

use crate::site::{SameSite, Sticky};

/// A compiled cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyView {
    /// Its name.
    pub name: Box<str>,
    /// How long it is good; `None` = for as long as it comes.
    pub ttl: Option<Duration>,
    /// What follows its value, without `Secure`.
    pub attributes: Box<str>,
    /// `Secure` is added; `None` = if the request came over TLS.
    pub secure: Option<bool>,
}

impl StickyView {
    pub(super) fn compile(sticky: &Sticky) -> Self {
        let mut attributes = format!("; Path={}", sticky.path.as_deref().unwrap_or("/"));
        if let Some(ttl) = sticky.ttl {
            attributes += &format!("; Max-Age={}", ttl.0.as_secs());
        }
        if sticky.http_only.unwrap_or(true) {
            attributes += "; HttpOnly";
        }
        attributes += match sticky.same_site.unwrap_or_default() {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        };
        Self {
            name: sticky.name.as_str().into(),
            ttl: sticky.ttl.map(|ttl| ttl.0),
            attributes: attributes.into(),
            secure: sticky.secure,
        }
    }
}
