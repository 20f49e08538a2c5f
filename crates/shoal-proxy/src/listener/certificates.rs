//! The certificates of a listener, found by the name that is asked for: one probe, or two, however many there are.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_cluster::{inspect_certificate, inspect_staple};
use shoal_model::view::CertificateView;

/// The certificates of a listener.
#[derive(Default)]
pub(crate) struct Certificates {
    loaded: Vec<Arc<Loaded>>,
    names: Names,
}

/// A certificate with its key, ready to be shown.
struct Loaded {
    /// What it was made of.
    view: Arc<CertificateView>,
    dns_names: Vec<String>,
    plain: Arc<CertifiedKey>,
    stapled: Option<Stapled>,
}

/// The same with an OCSP response.
struct Stapled {
    key: Arc<CertifiedKey>,
    /// Unix seconds; `None` = for ever.
    until: Option<i64>,
}

/// Places of certificates by name.
#[derive(Default)]
struct Names {
    exact: FxHashMap<Box<str>, u32>,
    /// `example.com` for `*.example.com`.
    wildcard: FxHashMap<Box<str>, u32>,
}

impl Names {
    /// The first certificate that claims a name has it.
    fn insert(&mut self, name: &str, place: u32) {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.into()).or_insert(place),
            None => self.exact.entry(name.into()).or_insert(place),
        };
    }

    /// One label may stand for a wildcard (RFC 9525 §6.3).
    fn find(&self, name: &str) -> Option<u32> {
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.find(&name.to_ascii_lowercase());
        }
        let by_wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(by_wildcard).copied()
    }
}

impl Certificates {
    /// Reads `views`, in their order; what `before` has read already is taken from there.
    pub(super) fn load(
        views: impl Iterator<Item = Arc<CertificateView>>,
        before: Option<&Self>,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let known: FxHashMap<&str, &Arc<Loaded>> =
            before.into_iter().flat_map(|before| &before.loaded).map(|one| (&*one.view.name, one)).collect();
        let mut certificates = Self::default();
        for view in views {
            let loaded = match known.get(&*view.name).filter(|known| known.view == view) {
                Some(same) => (*same).clone(),
                None => Arc::new(
                    Loaded::read(&view, provider)
                        .map_err(|error| format!("certificate {:?}: {error}", view.name))?,
                ),
            };
            let place = u32::try_from(certificates.loaded.len()).map_err(|_| "too many certificates")?;
            for name in &loaded.dns_names {
                certificates.names.insert(name, place);
            }
            certificates.loaded.push(loaded);
        }
        Ok(certificates)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// The place of the certificate for `name`. The first is the default.
    pub(crate) fn find(&self, name: Option<&str>) -> usize {
        name.and_then(|name| self.names.find(name)).map_or(0, |place| place as usize)
    }
}

impl Loaded {
    fn read(view: &Arc<CertificateView>, provider: &CryptoProvider) -> Result<Self, String> {
        let facts = inspect_certificate(&view.chain_pem, &view.key_pem)?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(view.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let key =
            PrivateKeyDer::from_pem_slice(view.key_pem.as_bytes()).map_err(|error| error.to_string())?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| error.to_string())?;
        let plain = CertifiedKey::new(chain, key);
        let stapled = match &view.staple {
            None => None,
            Some(response) => {
                let until = inspect_staple(&view.chain_pem, response)?.next_update;
                let key = CertifiedKey { ocsp: Some(response.to_vec()), ..plain.clone() };
                Some(Stapled { key: Arc::new(key), until })
            }
        };
        Ok(Self { view: view.clone(), dns_names: facts.dns_names, plain: Arc::new(plain), stapled })
    }

    /// A response that has expired would end the handshakes of those who look at it.
    fn at(&self, now: impl Fn() -> i64) -> Arc<CertifiedKey> {
        match &self.stapled {
            Some(stapled) if stapled.until.is_none_or(|until| now() < until) => stapled.key.clone(),
            _ => self.plain.clone(),
        }
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("count", &self.loaded.len()).finish_non_exhaustive()
    }
}

/// Shows the certificate of the name that is asked for.
#[derive(Debug)]
pub(super) struct BySni(pub(super) Arc<Certificates>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = &self.0;
        let loaded = certificates.loaded.get(certificates.find(hello.server_name()))?;
        Some(loaded.at(unix_now))
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    #[test]
    fn ten_thousand_names_are_one_table() {
        let mut names = Names::default();
        for place in 0..5_000 {
            names.insert(&format!("host-{place}.example.com"), place);
            names.insert(&format!("*.zone-{place}.example.net"), place);
        }
        let check = |name: &str, expected: Option<u32>| assert_eq!(names.find(name), expected, "{name}");
        for place in 0..5_000 {
            check(&format!("host-{place}.example.com"), Some(place));
            check(&format!("any.zone-{place}.example.net"), Some(place));
        }
        check("HOST-7.example.com", Some(7));
        check("host-5000.example.com", None);
        check("zone-7.example.net", None); // a wildcard stands for one label, and not for none
        check("a.b.zone-7.example.net", None);
        check("", None);
        check("com", None);
        assert_eq!((names.exact.len(), names.wildcard.len()), (5_000, 5_000), "a probe each, and no list");
    }

    #[test]
    fn the_first_to_claim_a_name_has_it_and_exact_names_win() {
        let mut names = Names::default();
        names.insert("*.example.com", 1);
        names.insert("a.example.com", 2);
        names.insert("a.example.com", 3);
        names.insert("*.example.com", 4);
        for (name, expected) in [("a.example.com", 2), ("b.example.com", 1)] {
            assert_eq!(names.find(name), Some(expected), "{name}");
        }
    }

    fn view(name: &str) -> Arc<CertificateView> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Arc::new(CertificateView {
            name: name.into(),
            chain_pem: certificate.pem().into(),
            key_pem: key.serialize_pem().into(),
            staple: None,
        })
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let provider = default_provider();
        let load = |views: &[&Arc<CertificateView>], before: Option<&Certificates>| {
            Certificates::load(views.iter().map(|view| (*view).clone()), before, &provider).unwrap()
        };
        let (a, b, new_b) = (view("a"), view("b"), view("b"));
        let first = load(&[&a, &b], None);
        let second = load(&[&new_b, &a], Some(&first));
        assert!(Arc::ptr_eq(&first.loaded[0], &second.loaded[1]), "the same");
        assert!(!Arc::ptr_eq(&first.loaded[1], &second.loaded[0]), "another one of the same name");
        assert_eq!(second.find(Some("a.example")), 1);
    }

    #[test]
    fn staples_are_shown_until_they_expire() {
        let plain = Arc::new(CertifiedKey::new(
            Vec::new(),
            default_provider()
                .key_provider
                .load_private_key(PrivateKeyDer::from_pem_slice(view("a").key_pem.as_bytes()).unwrap())
                .unwrap(),
        ));
        let stapled = Arc::new(CertifiedKey { ocsp: Some(vec![1]), ..(*plain).clone() });
        let check = |until: Option<Option<i64>>, now: i64, shown: bool| {
            let stapled = until.map(|until| Stapled { key: stapled.clone(), until });
            let loaded = Loaded { view: view("a"), dns_names: Vec::new(), plain: plain.clone(), stapled };
            assert_eq!(loaded.at(|| now).ocsp.is_some(), shown, "{until:?} at {now}");
        };
        check(None, 0, false);
        check(Some(None), i64::MAX, true);
        check(Some(Some(100)), 99, true);
        check(Some(Some(100)), 100, false);
    }
}
