//! A look into OCSP responses (RFC 6960) before they are stapled to handshakes.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use shoal_model::site::StapleFacts;
use x509_parser::asn1_rs::{Any, GeneralizedTime, Oid, Tag};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Parts of one value that are looked at.
const MAX_PARTS: usize = 64;
/// id-pkix-ocsp-basic.
const BASIC: &str = "1.3.6.1.5.5.7.48.1.1";

/// What a response (DER) says of the leaf of `chain_pem`, once it is clear that it calls it good. The signature is left to
/// whoever is shown it. The error is one line for whoever wrote the site.
pub fn inspect_staple(chain_pem: &str, response: &[u8]) -> Result<StapleFacts, String> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes())
        .map_err(|_| "there is no certificate in the chain".to_owned())?;
    let (_, leaf) =
        X509Certificate::from_der(&leaf).map_err(|_| "certificate 1 of the chain is not X.509".to_owned())?;
    let outer = parts(response).filter(|outer| outer.len() == 1);
    let whole = outer.and_then(|outer| parts(outer[0].data)).ok_or(NOT_OCSP)?;
    let [status, rest @ ..] = whole.as_slice() else { return Err(NOT_OCSP.to_owned()) };
    match (status.tag(), status.data) {
        (Tag::Enumerated, [0]) => {}
        (Tag::Enumerated, [code]) => {
            return Err(format!("the OCSP responder answered with an error, code {code}"));
        }
        _ => return Err(NOT_OCSP.to_owned()),
    }
    let answers = rest.first().and_then(answers_of).ok_or(NOT_OCSP)?;
    let about_leaf =
        answers.iter().filter_map(Answer::read).find(|answer| answer.serial == leaf.raw_serial());
    match about_leaf {
        None => Err("the OCSP response is about another certificate".to_owned()),
        Some(Answer { status: 0, next_update, .. }) => Ok(StapleFacts { next_update }),
        Some(Answer { status: 1, .. }) => Err("the OCSP response says that it is revoked".to_owned()),
        Some(_) => Err("the OCSP response says that it is unknown".to_owned()),
    }
}

const NOT_OCSP: &str = "its OCSP response is not one (DER, RFC 6960)";

/// `SingleResponse`s below `responseBytes`.
fn answers_of<'a>(response_bytes: &Any<'a>) -> Option<Vec<Any<'a>>> {
    let typed = parts(parts(response_bytes.data)?.first()?.data)?;
    let [kind, basic] = typed.as_slice() else { return None };
    if kind.clone().oid().ok()? != BASIC.parse::<Oid<'_>>().ok()? {
        return None;
    }
    let basic = parts(parts(basic.data)?.first()?.data)?;
    let about = parts(basic.first()?.data)?;
    // Version and extensions are tagged, the responder too; the time is none: the list is the one sequence.
    let list = about.iter().find(|part| part.header.is_universal() && part.tag() == Tag::Sequence)?;
    parts(list.data)
}

/// What is said of one certificate.
struct Answer<'a> {
    serial: &'a [u8],
    /// 0 = good, 1 = revoked, 2 = unknown.
    status: u32,
    next_update: Option<i64>,
}

impl<'a> Answer<'a> {
    fn read(single: &Any<'a>) -> Option<Self> {
        let fields = parts(single.data)?;
        let [id, status, _this_update, rest @ ..] = fields.as_slice() else { return None };
        let serial = parts(id.data)?.get(3)?.data;
        let next_update =
            rest.first().filter(|next| next.header.is_contextspecific() && next.tag() == Tag(0));
        let next_update = match next_update {
            Some(next) => {
                let (_, time) = GeneralizedTime::from_der(next.data).ok()?;
                Some(time.utc_datetime().ok()?.unix_timestamp())
            }
            None => None,
        };
        Some(Self { serial, status: status.tag().0, next_update })
    }
}

/// The values that stand one after another in `content`; `None` = it is no DER.
fn parts(mut content: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut parts = Vec::new();
    while !content.is_empty() {
        let (rest, part) = Any::from_der(content).ok()?;
        if parts.len() == MAX_PARTS {
            return None;
        }
        parts.push(part);
        content = rest;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SerialNumber};

    use super::*;

    fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        let length = u8::try_from(content.len()).unwrap();
        let length = if length < 128 { vec![length] } else { vec![0x81, length] };
        [&[tag][..], &length, &content].concat()
    }

    fn response(serial: u8, status: u8, next_update: Option<&str>) -> Vec<u8> {
        let hash = der(4, &[&[1; 20]]);
        let algorithm = der(0x30, &[&[6, 5, 0x2b, 0x0e, 3, 2, 0x1a]]);
        let id = der(0x30, &[&algorithm, &hash, &hash, &der(2, &[&[serial]])]);
        let time = |text: &str| der(0x18, &[text.as_bytes()]);
        let status =
            if status == 1 { der(0xa1, &[&time("20260101000000Z")]) } else { vec![0x80 + status, 0] };
        let next = next_update.map(|text| der(0xa0, &[&time(text)])).unwrap_or_default();
        let single = der(0x30, &[&id, &status, &time("20260101000000Z"), &next]);
        let responder = der(0xa2, &[&hash]);
        let about = der(0x30, &[&responder, &time("20260101000000Z"), &der(0x30, &[&single])]);
        let basic = der(0x30, &[&about, &algorithm, &der(3, &[&[0, 1]])]);
        let kind = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
        let bytes = der(0x30, &[&kind, &der(4, &[&basic])]);
        der(0x30, &[&der(0x0a, &[&[0]]), &der(0xa0, &[&bytes])])
    }

    #[test]
    fn tells_what_is_wrong_in_one_line() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![7]));
        let chain = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let check = |response: &[u8], expected: Result<Option<i64>, &str>| {
            let seen = inspect_staple(&chain, response).map(|facts| facts.next_update);
            match (&seen, expected) {
                (Ok(next), Ok(wanted)) => assert_eq!(*next, wanted),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message:?} and {part:?}"),
                (seen, expected) => panic!("{seen:?} instead of {expected:?}"),
            }
        };
        check(&response(7, 0, Some("20270101000000Z")), Ok(Some(1_798_761_600)));
        check(&response(7, 0, None), Ok(None));
        check(&response(8, 0, None), Err("another certificate"));
        check(&response(7, 1, None), Err("revoked"));
        check(&response(7, 2, None), Err("unknown"));
        check(&der(0x30, &[&der(0x0a, &[&[3]])]), Err("code 3"));
        check(b"", Err("is not one"));
        check(chain.as_bytes(), Err("is not one"));
        let whole = response(7, 0, Some("20270101000000Z"));
        for cut in 0..whole.len() {
            assert!(inspect_staple(&chain, &whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
