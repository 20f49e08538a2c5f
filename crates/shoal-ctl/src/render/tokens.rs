//! The tokens with which nodes may join.

use shoal_proto::admin::TokenStatus;

use super::table::Columns;
use super::units::span;
use crate::output::Style;

/// Each with its id, how often it may be used, and for how long.
pub fn tokens(tokens: &[TokenStatus], style: Style) -> String {
    let mut columns = Columns::new(["ID", "ROLE", "USES", "EXPIRES"]);
    for token in tokens {
        let left = (token.expires_at_ms / 1000).saturating_sub(style.now);
        let expires = format!("in {}", span(left));
        columns.row([token.id.clone(), token.role.clone(), token.uses_left.to_string(), expires]);
    }
    columns.text()
}
