//! What lets others in: tokens, and the certificates of operators.

use shoal_proto::admin::{ListOperatorsResponse, ListTokensResponse};

use super::staleness::warning;
use super::table::Columns;
use super::units::{moment, span};
use crate::output::Style;

/// What is said of a list that a majority could not be asked for.
const POSSIBLY_MISSING: &str = "this is what this node has; newer ones are possibly missing";

/// Each with its id, how often it may be used, and for how long.
pub fn tokens(response: &ListTokensResponse, style: Style) -> String {
    let ListTokensResponse { tokens, quorum, staleness_ms } = response;
    let mut columns = Columns::new(["ID", "ROLE", "USES", "EXPIRES"]);
    for token in tokens {
        let left = (token.expires_at_ms / 1000).saturating_sub(style.now);
        let expires = format!("in {}", span(left));
        columns.row([token.id.clone(), token.role.clone(), token.uses_left.to_string(), expires]);
    }
    warning(*quorum, *staleness_ms, POSSIBLY_MISSING) + &columns.text()
}

/// Each certificate with what it allows and how long it is good, and each name that was revoked.
pub fn operators(response: &ListOperatorsResponse, style: Style) -> String {
    let ListOperatorsResponse { operators, quorum, staleness_ms } = response;
    let mut columns = Columns::new(["NAME", "ROLE", "SINCE", "ENDS", "CERTIFICATE"]);
    for operator in operators {
        let ends = match operator.ends_at_ms {
            0 => String::new(),
            at_ms => format!("in {}", span((at_ms / 1000).saturating_sub(style.now))),
        };
        let since = moment(i64::try_from(operator.at_ms / 1000).unwrap_or(i64::MAX));
        columns.row([operator.name.clone(), operator.role.clone(), since, ends, operator.serial.clone()]);
    }
    warning(*quorum, *staleness_ms, POSSIBLY_MISSING) + &columns.text()
}
