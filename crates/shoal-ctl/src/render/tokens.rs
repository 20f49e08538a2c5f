//! What lets others in: tokens, and the certificates of operators.

use shoal_proto::admin::{OperatorStatus, TokenStatus};

use super::table::Columns;
use super::units::{moment, span};
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

/// Each certificate with what it allows and how long it is good, and each name that was revoked.
pub fn operators(operators: &[OperatorStatus], style: Style) -> String {
    let mut columns = Columns::new(["NAME", "ROLE", "SINCE", "ENDS", "CERTIFICATE"]);
    for operator in operators {
        let ends = match operator.ends_at_ms {
            0 => String::new(),
            at_ms => format!("in {}", span((at_ms / 1000).saturating_sub(style.now))),
        };
        let since = moment(i64::try_from(operator.at_ms / 1000).unwrap_or(i64::MAX));
        columns.row([operator.name.clone(), operator.role.clone(), since, ends, operator.serial.clone()]);
    }
    columns.text()
}
