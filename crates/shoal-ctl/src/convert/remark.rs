//! What is said of a directive that was not carried over as it was meant.

use std::fmt;

use serde::Serialize;

use super::directive::Directive;

/// A directive, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Remark {
    /// The file it stands in.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// As it is written, perhaps shortened.
    pub directive: String,
    /// Whether it is gone.
    pub kind: Kind,
    /// Why, or what to use instead.
    pub message: String,
}

/// What became of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The site says nothing of it.
    LeftOut,
    /// The site says something that is not quite the same.
    Changed,
}

impl Remark {
    pub(super) fn of(directive: &Directive, kind: Kind, message: impl Into<String>) -> Self {
        let place = &directive.place;
        Self {
            file: place.file.to_string(),
            line: place.line,
            column: place.column,
            directive: directive.shown(),
            kind,
            message: message.into(),
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, directive, kind, message } = self;
        let kind = match kind {
            Kind::LeftOut => "not carried over",
            Kind::Changed => "warning",
        };
        write!(f, "{file}:{line}:{column}: {directive}: {kind}: {message}")
    }
}
