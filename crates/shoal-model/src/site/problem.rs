//! What is wrong with a site, and where.

use std::fmt::{self, Write};

/// One thing that is wrong with a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file and the place in it (line and column, from 1), where known.
    pub place: Option<(String, u32, u32)>,
    /// Key path, e.g. `routes.shop.upstream`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// What sort of problem it is.
    pub kind: ProblemKind,
}

/// What sort of problem it is: what has to be done differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It can be read and makes no sense.
    Meaning,
    /// It makes sense and changes nothing. A site that is in force is served all the same.
    NoEffect,
    /// An earlier version took it, and this one does not any more. A site that is in force is served all the same.
    Outdated,
    /// It names an object that is not written; the cluster may have it.
    Absent,
    /// It cannot be read on from here: there may be more problems behind it.
    Form,
    /// A file as a whole cannot be read.
    Unread,
}

impl Problem {
    /// A problem at a key path.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: None, path: path.into(), message: message.into(), kind: ProblemKind::Meaning }
    }

    /// A setting that changes nothing, and why.
    pub(crate) fn no_effect(path: String, why: &str) -> Self {
        Self::at(path, format!("it has no effect: {why}")).of_kind(ProblemKind::NoEffect)
    }

    /// Nobody mended it before, and nobody has to now.
    pub(crate) fn is_served_in_force(&self) -> bool {
        matches!(self.kind, ProblemKind::NoEffect | ProblemKind::Outdated)
    }

    /// The same problem as one of another kind.
    pub fn of_kind(self, kind: ProblemKind) -> Self {
        Self { kind, ..self }
    }
}

/// One line without control characters, for it may quote names that nobody has checked and goes to a terminal.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line, column)) = &self.place {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        if !self.path.is_empty() {
            write_plain(&self.path, f)?;
            f.write_str(": ")?;
        }
        write_plain(&self.message, f)
    }
}

fn write_plain(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.chars().try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
}

/// Everything that is wrong with a site, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A line for each of the first `most`, and one for all others.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = self.0.iter().take(most).map(Problem::to_string).collect();
        if self.0.len() > most {
            lines.push(format!("… and {} more", self.0.len() - most));
        }
        lines
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// How a name stands in a key path: `routes."a.b".hosts`.
pub fn step(name: &str) -> String {
    if name.contains(['.', '[']) { format!("\"{name}\"") } else { name.to_owned() }
}
