//! Whether a connection goes on after a message (RFC 9112 §9.3).

use http::header::CONNECTION;
use http::{HeaderMap, Version};

/// What `Connection` says of the connection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// It ends.
    pub closes: bool,
    /// It goes on, though the message is an old one.
    pub keeps: bool,
}

impl Persistence {
    /// Takes in one of its options; `false` = that is about something else.
    pub(crate) fn add(&mut self, option: &[u8]) -> bool {
        let is = |known: &[u8]| option == known || option.eq_ignore_ascii_case(known);
        let (keeps, closes) = (is(b"keep-alive"), is(b"close"));
        self.keeps |= keeps;
        self.closes |= closes;
        keeps || closes
    }

    /// What both say.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { closes: self.closes || other.closes, keeps: self.keeps || other.keeps }
    }

    /// Whether the sender of a message of this version keeps the connection open.
    pub(crate) fn lasts(self, version: Version) -> bool {
        !self.closes && (self.keeps || version == Version::HTTP_11)
    }
}

/// Whether the sender of a message with these fields keeps the connection open.
pub fn persists(version: Version, headers: &HeaderMap) -> bool {
    let mut said = Persistence::default();
    for value in headers.get_all(CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            said.add(option);
        }
    }
    said.lasts(version)
}
