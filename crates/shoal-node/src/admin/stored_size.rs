//! How large a site may be: all that is stored has to fit through the door of a node that joins.

use tonic::{Code, Status};

use super::failure::{Exit, with_exit};

/// Bytes of a site as it is stored, JSON within JSON. The newest five are kept whatever they weigh, others are on their way in
/// (64 MiB, less than twice as much as JSON within JSON), there are purges (two million: 120 MiB) and the records of changes: a
/// node that joins takes 512 MiB of all that.
const MAX_STORED_SITE: usize = 48 << 20;

/// Refuses the `text` of a site that is too large to be stored.
pub(super) fn check_stored_size(text: &str) -> Result<(), Status> {
    match stored_bytes(text) {
        ..=MAX_STORED_SITE => Ok(()),
        bytes => {
            let why = format!("the site has {bytes} bytes as it is stored; at most {MAX_STORED_SITE} are");
            Err(with_exit(Code::InvalidArgument, Exit::Local, why))
        }
    }
}

/// Bytes of a text of JSON as a string in JSON: each quote and backslash gets a backslash, and there are no other characters in
/// it that are written otherwise.
fn stored_bytes(text: &str) -> usize {
    text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_measured_as_it_is_stored() {
        let check = |text: &str| {
            let stored = serde_json::to_string(text).unwrap();
            assert_eq!(stored_bytes(text) + 2, stored.len(), "{text}");
        };
        check("{}");
        check(r#"{"a":"b","c":["d\\e","\n\"f\"ä\u0000"]}"#);
        assert!(check_stored_size(&"x".repeat(MAX_STORED_SITE)).is_ok());
        assert!(check_stored_size(&"x".repeat(MAX_STORED_SITE + 1)).is_err());
        assert!(check_stored_size(&"\"".repeat(MAX_STORED_SITE / 2 + 1)).is_err());
    }
}
