//! Texts of PEM blocks (RFC 7468) in places that everybody may read: each keeps the blocks of its own kind and nothing else.
//!
//! Files that have a certificate and its key in one are usual, and readers of certificates pass over the key without a
//! word. What is written into such a place is shown to whoever may look, and stored as it is.

use super::{Problem, ProblemKind};

/// Ends the first line of a private key in every form: PKCS#8, encrypted or not, PKCS#1, SEC1, OpenSSH.
const KEY_MARK: &str = "PRIVATE KEY-----";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// What belongs to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocks {
    /// `CERTIFICATE`
    Certificates,
    /// `X509 CRL`
    RevocationLists,
}

impl Blocks {
    fn label(self) -> &'static str {
        match self {
            Self::Certificates => "CERTIFICATE",
            Self::RevocationLists => "X509 CRL",
        }
    }

    /// The blocks of this kind in `text`. One that does not end is kept as far as it goes, for its reader to complain of.
    pub(super) fn of(self, text: &str) -> String {
        let mut kept = String::with_capacity(text.len());
        let mut is_inside = false;
        for line in text.split_inclusive('\n') {
            let label = |mark| line.trim().strip_prefix(mark).and_then(|rest| rest.strip_suffix("-----"));
            if let Some(begins) = label(BEGIN) {
                is_inside = begins == self.label();
            }
            if is_inside {
                kept.push_str(line);
            }
            is_inside &= label(END).is_none();
        }
        kept
    }
}

/// Whether there is a private key in clear in `text`.
pub fn holds_private_key(text: &str) -> bool {
    text.contains(KEY_MARK)
}

/// Refuses a private key in a place that everybody may read.
pub(super) fn check_no_key(text: &str) -> Result<(), &'static str> {
    match holds_private_key(text) {
        true => Err("holds a private key, which everybody could read there; keep it in a file of its own"),
        false => Ok(()),
    }
}

/// The same for a text of a site, if it is there.
pub(super) fn validate_text(
    path: impl FnOnce() -> String,
    text: Option<&String>,
    problems: &mut Vec<Problem>,
) {
    if let Some(Err(why)) = text.map(|text| check_no_key(text)) {
        problems.push(Problem::at(path(), why).of_kind(ProblemKind::Outdated));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(label: &str, text: &str) -> String {
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    #[test]
    fn only_blocks_of_the_own_kind_are_kept() {
        let check =
            |blocks: Blocks, text: &str, expected: &str| assert_eq!(blocks.of(text), expected, "{text}");
        let (one, two) = (block("CERTIFICATE", "b25l"), block("CERTIFICATE", "dHdv"));
        let (key, list) = (block("RSA PRIVATE KEY", "a2V5"), block("X509 CRL", "bGlzdA=="));
        check(Blocks::Certificates, &one, &one);
        check(
            Blocks::Certificates,
            &format!("subject=CN = a\n{one}{key}\n# two\n{two}{list}"),
            &format!("{one}{two}"),
        );
        check(Blocks::RevocationLists, &format!("{one}{list}{key}"), &list);
        check(Blocks::Certificates, &key, "");
        check(Blocks::Certificates, "", "");
        let windows = one.replace('\n', "\r\n");
        check(Blocks::Certificates, &format!("a: b\r\n{windows}"), &windows);
        // Cut short.
        check(Blocks::Certificates, "-----BEGIN CERTIFICATE-----\nb25l", "-----BEGIN CERTIFICATE-----\nb25l");
        check(
            Blocks::Certificates,
            &format!("-----BEGIN CERTIFICATE-----\nb25l\n{key}"),
            "-----BEGIN CERTIFICATE-----\nb25l\n",
        );
    }

    #[test]
    fn keys_are_known_in_every_form() {
        for form in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
            let text = block("CERTIFICATE", "b25l") + &block(&format!("{form}PRIVATE KEY"), "a2V5");
            assert!(check_no_key(&text).is_err(), "{text}");
        }
        assert!(check_no_key("the private key is elsewhere").is_ok());
    }
}
