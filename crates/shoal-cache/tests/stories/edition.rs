//! A representation that an origin gives out as it is asked to: whole, by ranges, and not again to who has it.

use http::request::Parts;

use crate::origin::{Reply, reply};

/// One version of a text.
#[derive(Clone)]
pub struct Edition {
    text: &'static str,
    tag: &'static str,
    cache_control: &'static str,
    /// It says in a 206 how long the whole is.
    tells_length: bool,
    /// It answers `If-Range` with the whole.
    ignores_if_range: bool,
    /// Bytes that it puts into a 206 at most.
    most_bytes: usize,
}

impl Edition {
    /// A text under a tag, fresh for a minute.
    pub const fn new(text: &'static str, tag: &'static str) -> Self {
        let (tells_length, ignores_if_range) = (true, false);
        Self {
            text,
            tag,
            cache_control: "max-age=60",
            tells_length,
            ignores_if_range,
            most_bytes: usize::MAX,
        }
    }

    pub const fn under(self, cache_control: &'static str) -> Self {
        Self { cache_control, ..self }
    }

    pub const fn of_unknown_length(self) -> Self {
        Self { tells_length: false, ..self }
    }

    pub const fn ignoring_if_range(self) -> Self {
        Self { ignores_if_range: true, ..self }
    }

    pub const fn by(self, most_bytes: usize) -> Self {
        Self { most_bytes, ..self }
    }

    pub fn answer(&self, head: &Parts) -> Reply {
        let field = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
        let reply = |body| reply(self.cache_control, body).with("etag", self.tag);
        if field("if-none-match") == Some(self.tag) {
            return reply("").status(304);
        }
        let range = field("range")
            .filter(|_| field("if-range").is_none_or(|tag| tag == self.tag && !self.ignores_if_range));
        let length = self.text.len();
        let Some(range) = range else {
            return reply(self.text).with("content-length", &length.to_string());
        };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, last.min(length - 1)),
            (Ok(first), Err(_)) => (first, length - 1),
            (Err(_), Ok(bytes)) => (length - bytes.min(length), length - 1),
            (Err(_), Err(_)) => panic!("{range}"),
        };
        if first >= length {
            return reply("").status(416).with("content-range", &format!("bytes */{length}"));
        }
        let last = last.min(first.saturating_add(self.most_bytes - 1));
        let whole = if self.tells_length { length.to_string() } else { "*".to_owned() };
        reply(&self.text[first..=last])
            .status(206)
            .with("content-length", &(last + 1 - first).to_string())
            .with("content-range", &format!("bytes {first}-{last}/{whole}"))
    }
}
