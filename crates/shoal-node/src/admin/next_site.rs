//! What a site becomes when it is applied: laid over the active one, checked, its keys sealed.

use shoal_cluster::identity::{
    ClusterSecret, inspect_authorities, inspect_certificate, inspect_client_auth, inspect_staple,
};
use shoal_model::site::{
    Absent, Delta, KeyForm, Problem, Problems, check_authorities, check_certificates, check_client_auth,
    check_staples, merge, step, tell_in_use, validate_next,
};
use shoal_model::{ConfigView, Revision, Site};

use crate::planted;
use crate::sealed_site::{open_key, seal, unseal};

/// Of a file that is only named: what it would say does not count, and the default would instead.
const UNREAD: &str = "its file was not read in where the site comes from; nodes read none";

/// The given objects laid over the active ones: validated, compiled once, keys sealed.
pub fn next_site(
    secret: &ClusterSecret,
    active: &Site,
    given: Delta,
    absent: Absent,
) -> Result<Site, Problems> {
    let Delta { mut put, removed } = given;
    find_renamed_keys(secret, active, &mut put);
    let unread = put.take_files().iter().map(|named| Problem::at(named.path(), UNREAD)).collect::<Vec<_>>();
    if !unread.is_empty() {
        return Err(Problems(unread));
    }
    let merged = merge(active, put, absent).without(&removed);
    if merged.is_empty() && !active.is_empty() {
        let why = "the result would be an empty site, and every request would be refused";
        return Err(Problems(vec![Problem::at("", why)]));
    }
    let mut problems = validate_next(&merged, active);
    tell_in_use(&mut problems, &removed);
    for (name, certificate) in &merged.certificates {
        if certificate.key_form() == KeyForm::Fingerprint {
            let why = "the key was not sent, and the cluster has no key with that fingerprint";
            problems.push(Problem::at(format!("certificates.{}", step(name)), why));
        }
    }
    // A chain may have been replaced while its key stayed: sealed keys are compared too.
    let clear = unseal(merged.with_own_blocks(), secret).map_err(|error| Problems(vec![error.problem()]))?;
    problems.extend(check_certificates(&clear, inspect_certificate));
    problems.extend(check_staples(&clear, inspect_staple));
    problems.extend(check_authorities(&clear, inspect_authorities));
    problems.extend(check_client_auth(&clear, inspect_client_auth));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    planted::poison(&clear);
    ConfigView::compile(Revision(0), &clear)?;
    Ok(keep_equal_seals(active, seal(clear, secret)))
}

/// A seal holds for one name. A certificate under a new name that shows the fingerprint of a key of the active site gets
/// that key in clear text, to be sealed anew.
fn find_renamed_keys(secret: &ClusterSecret, active: &Site, given: &mut Site) {
    for (name, certificate) in &mut given.certificates {
        let kept =
            active.certificates.get(name).is_some_and(|known| known.key_sha256 == certificate.key_sha256);
        if kept || certificate.key_form() != KeyForm::Fingerprint {
            continue;
        }
        let same_key =
            active.certificates.iter().find(|(_, known)| known.key_sha256 == certificate.key_sha256);
        certificate.key_pem = same_key.and_then(|(name, known)| open_key(name, known, secret).ok());
    }
}

/// Sealing twice gives two texts; a key that did not change keeps the one it has, so that it is no difference.
fn keep_equal_seals(active: &Site, mut next: Site) -> Site {
    for (name, certificate) in &mut next.certificates {
        let Some(before) = active.certificates.get(name) else { continue };
        if before.key_sha256 == certificate.key_sha256 {
            certificate.key_sealed = before.key_sealed.clone();
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use shoal_cluster::identity::Identity;
    use shoal_model::site::{Certificate, diff};

    use super::*;
    use crate::sealed_site::redact;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn pair() -> Certificate {
        let (identity, _) = Identity::bootstrap("any").unwrap();
        Certificate {
            chain_pem: Some(pem("CERTIFICATE", &identity.cert_der)),
            key_pem: Some(pem("PRIVATE KEY", identity.key_der.secret_pkcs8_der())),
            ..Certificate::default()
        }
    }

    fn site(name: &str, certificate: Certificate) -> Site {
        Site { certificates: [(name.to_owned(), certificate)].into(), ..Site::default() }
    }

    #[test]
    fn a_site_that_was_shown_can_be_applied_again() {
        let secret = ClusterSecret::generate();
        let active = next_site(&secret, &Site::default(), site("shop", pair()).into(), Absent::Keep).unwrap();
        let sealed = &active.certificates["shop"];
        assert_eq!((sealed.key_form(), &sealed.key_pem), (KeyForm::Sealed, &None));
        let shown = redact(active.clone());

        let again = next_site(&secret, &active, shown.clone().into(), Absent::Remove).unwrap();
        assert!(diff(&active, &again).is_empty());

        let renamed = site("store", shown.certificates["shop"].clone());
        let renamed = next_site(&secret, &active, renamed.into(), Absent::Remove).unwrap();
        assert!(!renamed.certificates.contains_key("shop"));
        let key = |name: &str, site: &Site| open_key(name, &site.certificates[name], &secret).unwrap();
        assert_eq!(key("store", &renamed), key("shop", &active), "sealed anew under its new name");
    }

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        let secret = ClusterSecret::generate();
        let active = next_site(&secret, &Site::default(), site("shop", pair()).into(), Absent::Keep).unwrap();
        let shown = redact(active.clone()).certificates["shop"].clone();
        let check = |certificate: Certificate, expected: &str| {
            let refused =
                next_site(&secret, &active, site("shop", certificate).into(), Absent::Keep).unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        };
        let other_chain = Certificate { chain_pem: pair().chain_pem, ..shown.clone() };
        check(other_chain, "certificates.shop: the key does not match the certificate");
        let unknown_key = Certificate { key_sha256: Some("00".to_owned()), ..shown.clone() };
        check(unknown_key, "the cluster has no key with that fingerprint");
        let forged_seal = Certificate { key_sealed: Some(STANDARD.encode([7; 80])), ..shown };
        check(forged_seal, "certificates.shop: its key cannot be unsealed");
    }

    #[test]
    fn keys_and_unread_files_are_refused_wherever_they_stand() {
        let (secret, certificate) = (ClusterSecret::generate(), pair());
        let chain = certificate.chain_pem.clone().unwrap();
        let combined = format!("{chain}{}", certificate.key_pem.as_deref().unwrap());
        let next = |text: &str| {
            let given = Site::from_json(text).unwrap();
            next_site(&secret, &Site::default(), given.into(), Absent::Keep)
        };
        let check = |object: serde_json::Value, expected: &str| {
            let refused = next(&object.to_string()).unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        };
        let upstream = |tls| serde_json::json!({"upstreams": {"u": {"endpoints": ["h:1"], "tls": tls}}});
        let listener = |auth| {
            let mut site = serde_json::to_value(site("c", certificate.clone())).unwrap();
            site["listeners"] = serde_json::json!({"l": {
                "address": ":1", "protocol": "https", "certificates": ["c"], "client_auth": auth,
            }});
            site
        };
        let own = Certificate { chain_pem: Some(combined.clone()), ..certificate.clone() };
        let of_chain = serde_json::to_value(site("c", own)).unwrap();
        check(of_chain, "certificates.c.chain_pem: holds a private key");
        check(
            upstream(serde_json::json!({"ca_pem": combined})),
            "upstreams.u.tls.ca_pem: holds a private key",
        );
        let auth = serde_json::json!({"ca_pem": chain, "crl_pem": combined});
        check(listener(auth), "listeners.l.client_auth.crl_pem: holds a private key");
        check(
            upstream(serde_json::json!({"ca_file": "a"})),
            "upstreams.u.tls.ca_file: its file was not read in",
        );
        check(listener(serde_json::json!({"ca_file": "a"})), "listeners.l.client_auth.ca_file: its file");
        let with_staple = Certificate { ocsp_file: Some("a".into()), ..certificate.clone() };
        let with_staple = serde_json::to_value(site("c", with_staple)).unwrap();
        check(with_staple, "certificates.c.ocsp_file: its file");

        // What lies around a certificate goes, and what an older version has stored is not shown.
        let noted = Certificate { chain_pem: Some(format!("subject=a\n{chain}")), ..certificate.clone() };
        let taken = next(&site("c", noted).to_canonical_json()).unwrap();
        assert_eq!(taken.certificates["c"].chain_pem.as_ref(), Some(&chain));
        let mut stored = taken;
        stored.certificates.get_mut("c").unwrap().chain_pem = Some(combined.clone());
        assert_eq!(redact(stored).certificates["c"].chain_pem.as_ref(), Some(&chain));
    }

    #[test]
    fn a_site_is_not_emptied_by_accident() {
        let secret = ClusterSecret::generate();
        let active = next_site(&secret, &Site::default(), site("shop", pair()).into(), Absent::Keep).unwrap();
        assert!(next_site(&secret, &active, Delta::default(), Absent::Remove).is_err());
        assert!(next_site(&secret, &active, Delta::default(), Absent::Keep).is_ok());
    }
}
