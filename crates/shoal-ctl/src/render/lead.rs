//! Who leads.

use shoal_proto::admin::TransferLeaderResponse;

use crate::failure::one_line;

/// Who leads now, and how long that took.
pub fn transferred(response: &TransferLeaderResponse) -> String {
    let TransferLeaderResponse { node, term, elapsed_ms, unchanged, .. } = response;
    let node = one_line(node);
    if *unchanged {
        return format!("{node} leads already, term {term}\n");
    }
    format!("{node} leads now, term {term}, after {:.1} s\n", f64::from(*elapsed_ms) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_is_one_line() {
        let response = TransferLeaderResponse {
            node: "n2".to_owned(),
            term: 7,
            elapsed_ms: 214,
            ..TransferLeaderResponse::default()
        };
        assert_eq!(transferred(&response), "n2 leads now, term 7, after 0.2 s\n");
        let before = TransferLeaderResponse { unchanged: true, ..response };
        assert_eq!(transferred(&before), "n2 leads already, term 7\n");
    }
}
