//! A site file laid over the site that is active.

use super::{Certificate, KeyForm, Site};

/// What happens to objects that the new site does not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// They stay as they are.
    Keep,
    /// They are removed (`--prune`).
    Remove,
}

/// The site after `new` is applied over `active`, object by object. A certificate that carries only the fingerprint of
/// the key it already has keeps that key.
pub fn merge(active: &Site, new: Site, absent: Absent) -> Site {
    let mut merged = match absent {
        Absent::Keep => active.clone(),
        Absent::Remove => Site::default(),
    };
    merged.listeners.extend(new.listeners);
    merged.routes.extend(new.routes);
    merged.upstreams.extend(new.upstreams);
    merged.dns_zones.extend(new.dns_zones);
    for (name, certificate) in new.certificates {
        let certificate = keep_key(certificate, active.certificates.get(&name));
        merged.certificates.insert(name, certificate);
    }
    merged
}

fn keep_key(new: Certificate, active: Option<&Certificate>) -> Certificate {
    let Some(active) = active else { return new };
    let same_key = new.key_sha256.is_some() && new.key_sha256 == active.key_sha256;
    match new.key_form() {
        KeyForm::Fingerprint if same_key => Certificate { key_sealed: active.key_sealed.clone(), ..new },
        _ => new,
    }
}
