//! The text of our `Cache-Status` member (RFC 9211).

use std::fmt::Write;

use http::header::HeaderValue;

use super::refusal::Refusal;

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The cache was not asked.
    Bypass,
    /// Its method is not one that is answered from a cache.
    Method,
    /// Nothing is stored under its URL.
    UriMiss,
    /// Nothing that is stored under its URL fits its fields.
    VaryMiss,
    /// Nothing suitable is stored.
    Miss,
    /// The request wanted it so.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part is stored.
    Partial,
}

impl Forwarded {
    const fn text(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// Where an answer came from, or why it does not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// This node's memory.
    LocalRam,
    /// This node's disk.
    LocalDisk,
    /// Another node of the cluster.
    Peer,
    /// This node, which may have missed a purge.
    PurgeUnverified,
    /// The origin, and it is not stored.
    NotStored(Refusal),
}

impl Detail {
    fn text(self) -> &'static str {
        match self {
            Self::LocalRam => "local-ram",
            Self::LocalDisk => "local-disk",
            Self::Peer => "peer",
            Self::PurgeUnverified => "purge-unverified",
            Self::NotStored(refusal) => refusal.word(),
        }
    }
}

/// Whether a member that [`CacheStatus::text`] wrote says that no origin was asked.
pub fn says_hit(member: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(member.as_bytes());
    let mut parameters = text.rsplit("; ");
    // From the right: the name of a node may hold anything.
    parameters.any(|parameter| parameter == "hit") && !text.contains("; fwd=")
}

/// The member of one node.
#[derive(Clone, Debug)]
pub struct CacheStatus<'a> {
    /// The node's name.
    pub node: &'a str,
    /// `None` = a hit.
    pub forwarded: Option<Forwarded>,
    /// What the next one answered.
    pub forwarded_status: Option<u16>,
    /// Seconds of freshness left; negative when stale.
    pub ttl: Option<i64>,
    /// The response was stored.
    pub stored: bool,
    /// The request waited for another one's response.
    pub collapsed: bool,
    /// Where the answer came from, or why it is not stored.
    pub detail: Option<Detail>,
}

impl<'a> CacheStatus<'a> {
    /// An answer out of the store.
    pub const fn hit(node: &'a str, ttl: i64, detail: Detail) -> Self {
        Self {
            node,
            forwarded: None,
            forwarded_status: None,
            ttl: Some(ttl),
            stored: false,
            collapsed: false,
            detail: Some(detail),
        }
    }

    /// A forwarded request.
    pub const fn forwarded(node: &'a str, why: Forwarded) -> Self {
        Self {
            node,
            forwarded: Some(why),
            forwarded_status: None,
            ttl: None,
            stored: false,
            collapsed: false,
            detail: None,
        }
    }

    /// Writes the member.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(64);
        write_node(&mut text, self.node);
        match self.forwarded {
            None => text.push_str("; hit"),
            Some(why) => {
                text.push_str("; fwd=");
                text.push_str(why.text());
            }
        }
        let mut number = |name: &str, value: Option<i64>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(text, "; {name}={value}");
            }
        };
        number("fwd-status", self.forwarded_status.map(i64::from));
        number("ttl", self.ttl);
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            text.push_str("; detail=");
            text.push_str(detail.text());
        }
        text
    }

    /// As a field value.
    pub fn value(&self) -> HeaderValue {
        // `write_node` lets only printable ASCII through, and the rest is ours.
        HeaderValue::try_from(self.text()).unwrap_or(HeaderValue::from_static("shoal"))
    }
}

/// A token where the name is one, else a string; what a string cannot hold becomes `?`.
fn write_node(text: &mut String, name: &str) {
    let is_token = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if is_token {
        text.push_str(name);
        return;
    }
    text.push('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => text.push('?'),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_structured_fields() {
        assert_eq!(CacheStatus::hit("n1", -3, Detail::LocalRam).text(), "n1; hit; ttl=-3; detail=local-ram");
        let miss = CacheStatus {
            forwarded_status: Some(200),
            stored: true,
            collapsed: true,
            ..CacheStatus::forwarded("7 \"x\" é", Forwarded::UriMiss)
        };
        assert_eq!(miss.text(), r#""7 \"x\" ?"; fwd=uri-miss; fwd-status=200; stored; collapsed"#);
        assert_eq!(miss.value().to_str().unwrap(), miss.text());
        let refused = CacheStatus {
            detail: Some(Detail::NotStored(Refusal::SetCookie)),
            ..CacheStatus::forwarded("n1", Forwarded::UriMiss)
        };
        assert_eq!(refused.text(), "n1; fwd=uri-miss; detail=set-cookie");
    }

    #[test]
    fn a_member_tells_whether_it_was_a_hit() {
        assert!(says_hit(&CacheStatus::hit("n1", -3, Detail::LocalRam).value()));
        assert!(!says_hit(&CacheStatus::forwarded("a; hit; x", Forwarded::Stale).value()));
        let collapsed = CacheStatus { collapsed: true, ..CacheStatus::forwarded("n1", Forwarded::Miss) };
        assert!(!says_hit(&collapsed.value()));
    }
}
