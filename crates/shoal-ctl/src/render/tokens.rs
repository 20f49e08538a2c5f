//! What lets others in: tokens, and the certificates of operators.

use shoal_proto::admin::{ListOperatorsResponse, ListTokensResponse};

use super::table::Columns;
use super::units::{moment, span};
use crate::output::Style;

/// Each with its id, how often it may be used, and for how long.
pub fn tokens(response: &ListTokensResponse, style: Style) -> String {
    let ListTokensResponse { tokens, quorum } = response;
    let mut columns = Columns::new(["ID", "ROLE", "USES", "EXPIRES"]);
    for token in tokens {
        let left = (token.expires_at_ms / 1000).saturating_sub(style.now);
        let expires = format!("in {}", span(left));
        columns.row([token.id.clone(), token.role.clone(), token.uses_left.to_string(), expires]);
    }
    possibly_old(*quorum) + &columns.text()
}

/// Each certificate with what it allows and how long it is good, and each name that was revoked.
pub fn operators(response: &ListOperatorsResponse, style: Style) -> String {
    let ListOperatorsResponse { operators, quorum } = response;
    let mut columns = Columns::new(["NAME", "ROLE", "SINCE", "ENDS", "CERTIFICATE"]);
    for operator in operators {
        let ends = match operator.ends_at_ms {
            0 => String::new(),
            at_ms => format!("in {}", span((at_ms / 1000).saturating_sub(style.now))),
        };
        let since = moment(i64::try_from(operator.at_ms / 1000).unwrap_or(i64::MAX));
        columns.row([operator.name.clone(), operator.role.clone(), since, ends, operator.serial.clone()]);
    }
    possibly_old(*quorum) + &columns.text()
}

/// What goes before a list that a majority could not be asked for.
fn possibly_old(quorum: bool) -> String {
    let warning = "warning: no quorum: this is what this node has; newer ones are possibly missing\n";
    if quorum { String::new() } else { warning.to_owned() }
}
