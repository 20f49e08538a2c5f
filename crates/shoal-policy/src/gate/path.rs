//! The canonical path of a request: what [`shoal_model::path`] says, as a rule of the gate.

use std::borrow::Cow;

use super::Rule;

/// The canonical form of `path`, borrowed if it is canonical already: see [`shoal_model::path::canonical_path`].
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, Rule> {
    shoal_model::path::canonical_path(path).map_err(|_| Rule::Path)
}
