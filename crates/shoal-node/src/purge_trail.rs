//! Who has asked this node for which purge, as its log tells it: a line of each that concerns more than URLs, and of URLs one
//! at `debug`.

use std::fmt::Write;

use shoal_model::state::PurgeKind;
use shoal_proto::admin::PurgeRequest;
use shoal_proxy::PurgeAsker;

/// Bytes from which on a line names no further scope.
const ENOUGH_BYTES: usize = 1024;
/// Characters of a scope that are shown.
const SHOWN_CHARS: usize = 256;

/// Who asks for a purge, and what was written. The default is told nowhere, as what an origin has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeTrail {
    by: String,
    /// What may concern any number of objects.
    many: String,
    urls: String,
}

impl PurgeTrail {
    /// What `by` asks for.
    pub fn of_request(by: String, request: &PurgeRequest) -> Self {
        let named = [
            ("host", &request.hosts),
            ("prefix", &request.prefixes),
            ("tag", &request.tags),
            ("group", &request.groups),
        ];
        let named =
            named.iter().flat_map(|(word, scopes)| scopes.iter().map(|scope| (*word, scope.as_str())));
        let all = request.all.then_some(("all", ""));
        let urls = request.urls.iter().map(|url| ("url", url.as_str()));
        Self { by, many: list(all.into_iter().chain(named)), urls: list(urls) }
    }

    /// What was written, in one line.
    pub fn summary(&self) -> String {
        let between = if self.many.is_empty() || self.urls.is_empty() { "" } else { ", " };
        format!("{}{between}{}", self.many, self.urls)
    }

    /// Says that it is in the log, at `seq`.
    pub fn tell(&self, seq: u64, kind: PurgeKind) {
        let kind = match kind {
            PurgeKind::Hard => "hard",
            PurgeKind::Soft => "soft",
        };
        let Self { by, many, urls } = self;
        if !many.is_empty() {
            tracing::info!(seq, kind, by, what = %many, "a purge was asked for");
        }
        if !urls.is_empty() {
            tracing::debug!(seq, kind, by, what = %urls, "a purge of URLs was asked for");
        }
    }
}

impl From<&PurgeAsker> for PurgeTrail {
    fn from(asker: &PurgeAsker) -> Self {
        match asker {
            PurgeAsker::Caller { address, url } => {
                Self { by: address.to_string(), many: String::new(), urls: list([("url", &**url)]) }
            }
            PurgeAsker::Origin { .. } => Self::default(),
        }
    }
}

/// Words and scopes in one line, escaped, and no longer than it can be read.
fn list<'a>(scopes: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let (mut text, mut left_out) = (String::new(), 0);
    for (word, scope) in scopes {
        if text.len() >= ENOUGH_BYTES {
            left_out += 1;
            continue;
        }
        let comma = if text.is_empty() { "" } else { ", " };
        let shown: String = scope.chars().take(SHOWN_CHARS).collect();
        let rest = if shown.len() < scope.len() { "…" } else { "" };
        // A string takes everything.
        _ = match scope {
            "" => write!(text, "{comma}{word}"),
            _ => write!(text, "{comma}{word} {shown:?}{rest}"),
        };
    }
    if left_out > 0 {
        _ = write!(text, ", and {left_out} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_told_escaped_and_in_short() {
        let request = PurgeRequest {
            urls: vec!["http://a/\u{1b}[31m".to_owned()],
            hosts: vec!["shop".to_owned()],
            prefixes: vec!["shop/a\"b".to_owned()],
            tags: vec!["x".repeat(300)],
            groups: vec!["http://shop news".to_owned()],
            all: true,
            ..PurgeRequest::default()
        };
        let trail = PurgeTrail::of_request("ann (local socket)".to_owned(), &request);
        let tag = "x".repeat(SHOWN_CHARS);
        let many =
            format!("all, host \"shop\", prefix \"shop/a\\\"b\", tag \"{tag}\"…, group \"http://shop news\"");
        assert_eq!(trail.many, many);
        assert_eq!(trail.urls, "url \"http://a/\\u{1b}[31m\"");
        assert_eq!(trail.summary(), format!("{many}, {}", trail.urls));

        let request = PurgeRequest { tags: vec!["12345678".to_owned(); 1000], ..PurgeRequest::default() };
        let many = PurgeTrail::of_request(String::new(), &request).many;
        assert!(many.len() < ENOUGH_BYTES + 100 && many.ends_with(", and 935 more"), "{many}");
    }

    #[test]
    fn a_url_is_told_with_the_address_of_its_caller() {
        let caller = PurgeAsker::Caller { address: [192, 0, 2, 7].into(), url: "http://a/b".into() };
        let expected = PurgeTrail {
            by: "192.0.2.7".to_owned(),
            many: String::new(),
            urls: "url \"http://a/b\"".to_owned(),
        };
        assert_eq!(PurgeTrail::from(&caller), expected);
        assert_eq!(PurgeTrail::from(&PurgeAsker::Origin { host: 1 }), PurgeTrail::default());
    }
}
