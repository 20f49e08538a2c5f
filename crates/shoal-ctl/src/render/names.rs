//! Names, of which there may be many.

use crate::failure::one_line;

/// Most that are written out.
pub(super) const MAX_NAMES: usize = 5;

/// The first few, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| one_line(name)).collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
