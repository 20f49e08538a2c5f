//! What both kinds of files are made of: directives with arguments, and perhaps a block of further ones.

use std::fmt;
use std::rc::Rc;

/// Longest text of a directive that is quoted, in bytes.
const MAX_SHOWN_BYTES: usize = 80;
/// What is quoted with all its arguments begins so: it says where requests come from and go. Of anything else the first
/// one is enough, for the others may be fields with passwords in them.
const OPEN: [&str; 25] = [
    "access_log",
    "fastcgi_pass",
    "grpc_next_upstream",
    "grpc_pass",
    "handle",
    "hash",
    "limit_",
    "listen",
    "location",
    "log",
    "proxy_cache_",
    "proxy_next_upstream",
    "proxy_no_cache",
    "proxy_pass",
    "random",
    "redir",
    "reverse_proxy",
    "root",
    "route",
    "server",
    "ssl_protocols",
    "try_files",
    "upstream",
    "to",
    "lb_",
];
/// What is quoted without any.
const SECRET: [&str; 6] = ["secret", "password", "token", "acme", "auth_jwt", "dns"];

/// Where something stands: a file, line and column, the latter two from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As it was named.
    pub file: Rc<str>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub why: String,
}

impl Mistake {
    pub(super) fn at(place: &Place, why: impl Into<String>) -> Self {
        Self { place: place.clone(), why: why.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

/// `name args…;` or `name args… { block }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) place: Place,
    pub(super) block: Option<Vec<Self>>,
}

impl Directive {
    /// The first argument, or nothing.
    pub(super) fn first(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }

    /// What stands in its block.
    pub(super) fn body(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The first of that name in its block.
    pub(super) fn find(&self, name: &str) -> Option<&Self> {
        self.body().iter().find(|directive| directive.name == name)
    }

    /// As it is quoted to people: without its block, not too long, and without what could be a secret.
    pub(super) fn shown(&self) -> String {
        let mut shown = self.name.clone();
        let count = match self.name.as_str() {
            name if SECRET.iter().any(|word| name.contains(word)) => 0,
            name if OPEN.iter().any(|word| name.starts_with(word)) => self.args.len(),
            _ => 1,
        };
        for argument in self.args.iter().take(count) {
            if shown.len() > MAX_SHOWN_BYTES {
                break;
            }
            shown.push(' ');
            shown.push_str(argument);
        }
        if count < self.args.len() {
            shown.push_str(" …");
        }
        if shown.len() > MAX_SHOWN_BYTES {
            shown.truncate(shown.floor_char_boundary(MAX_SHOWN_BYTES));
            shown.push('…');
        }
        shown
    }
}
