//! A Caddyfile: its sites as routes, their addresses as listeners.

mod address;
mod handlers;
mod lexer;
mod matcher;
mod options;
mod proxy;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use shoal_model::site::Protocol;

use self::address::{Address, Ports};
use self::handlers::Handlers;
use super::directive::{Directive, Mistake, Place};
use super::draft::{Draft, listener_at};
use super::{Conversion, Surroundings};

pub(super) fn convert(
    file: &str,
    text: &str,
    surroundings: &dyn Surroundings,
) -> Result<Conversion, Mistake> {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok_and(|_| text.trim_start().starts_with('{')) {
        let place = Place { file: file.into(), line: 1, column: 1 };
        return Err(Mistake::at(&place, "this is Caddy's JSON: write it as a Caddyfile"));
    }
    let found = tree::read(file, text, surroundings)?;
    let home = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut draft = Draft::default();
    let ports = options::ports(&found.options, &mut draft);
    for import in &found.missing {
        draft.left_out(import, "no file matches it here: what it imports elsewhere is missing");
    }
    let sites: Vec<Site<'_>> = found.sites.iter().map(|at| Site::read(at, ports, &mut draft)).collect();
    open_listeners(&sites, &mut draft);
    for site in &sites {
        site.secure(home, &mut draft);
        for (hosts, listeners) in &site.groups {
            Handlers { hosts, listeners }.convert(site.at.body(), &mut draft)?;
        }
    }
    options::servers(&found.options, &mut draft);
    Ok(draft.finish())
}

/// A site block and its addresses.
struct Site<'a> {
    at: &'a Directive,
    addresses: Vec<Address>,
    /// Hosts (none = any) and the listeners on which they are asked for.
    groups: Vec<(Vec<String>, Vec<String>)>,
}

impl<'a> Site<'a> {
    fn read(at: &'a Directive, ports: Ports, draft: &mut Draft) -> Self {
        let has_tls = at.find("tls").is_some();
        let mut addresses = Vec::new();
        for text in std::iter::once(&at.name).chain(&at.args).flat_map(|word| word.split(',')) {
            if text.is_empty() {
                continue;
            }
            match Address::read(text, ports, has_tls) {
                Ok(address) => addresses.push(address),
                Err(why) => draft.left_out(at, why),
            }
        }
        let binds: Vec<&str> = match at.find("bind") {
            Some(bind) => bind.args.iter().map(String::as_str).collect(),
            None => vec![""],
        };
        let mut hosts_on: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for address in &addresses {
            for bind in &binds {
                let hosts = hosts_on.entry(listener_name(bind, address)).or_default();
                if let Some(host) = address.host.as_ref().filter(|host| !hosts.contains(host)) {
                    hosts.push(host.clone());
                }
            }
        }
        for address in addresses.iter().filter(|address| address.host.is_none()) {
            // Any host: those beside it are among them.
            for bind in &binds {
                hosts_on.entry(listener_name(bind, address)).or_default().clear();
            }
        }
        let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        for (listener, hosts) in hosts_on {
            match groups.iter_mut().find(|(same, _)| *same == hosts) {
                Some((_, listeners)) => listeners.push(listener),
                None => groups.push((hosts, vec![listener])),
            }
        }
        Self { at, addresses, groups }
    }

    fn binds(&self) -> Vec<String> {
        self.at.find("bind").map_or_else(|| vec![String::new()], |bind| bind.args.clone())
    }

    /// Certificates and what else is said of TLS.
    fn secure(&self, home: &Path, draft: &mut Draft) {
        let is_secure = |draft: &Draft, name: &String| {
            draft.listeners().get(name).is_some_and(|listener| listener.protocol == Protocol::Https)
        };
        let listeners: Vec<String> = self
            .groups
            .iter()
            .flat_map(|(_, names)| names)
            .filter(|name| is_secure(draft, name))
            .cloned()
            .collect();
        if listeners.is_empty() {
            return;
        }
        let host = self.addresses.iter().find(|address| address.tls).and_then(|address| address.host.clone());
        let wish = host.as_deref().map_or("default", |host| host.trim_start_matches("*.")).to_owned();
        let tls = self.at.find("tls");
        if let Some(tls) = tls {
            options::tls(tls, &listeners, home, draft);
        }
        let files = tls.and_then(|tls| Some((home.join(tls.args.first()?), home.join(tls.args.get(1)?))));
        let (chain, key) = files.unwrap_or_else(|| {
            let stem = wish.replace(':', "-");
            let (chain, key) = (format!("{stem}.pem"), format!("{stem}.key"));
            let whence = match self.addresses.iter().all(Address::is_internal) {
                true => "Shoal makes no certificates",
                false => "Shoal gets no certificates, and redirects no http:// to https://",
            };
            let why =
                format!("{whence}: put a chain into {chain} and its key into {key} before this is applied");
            draft.left_out(tls.unwrap_or(self.at), why);
            (chain.into(), key.into())
        });
        let certificate = draft.certificate(&wish, chain, key, tls.unwrap_or(self.at));
        options::each(&listeners, draft, |listener| {
            if !listener.certificates.contains(&certificate) {
                listener.certificates.push(certificate.clone());
            }
        });
    }
}

fn open_listeners(sites: &[Site<'_>], draft: &mut Draft) {
    for site in sites {
        for bind in site.binds() {
            for address in &site.addresses {
                let name = listener_name(&bind, address);
                if draft.listeners().contains_key(&name) {
                    continue;
                }
                let protocol = if address.tls { Protocol::Https } else { Protocol::Http };
                draft.listener(name, listener_at(bound(&bind, address.port), protocol), site.at);
            }
        }
    }
}

/// What a listener is called after it.
fn listener_name(bind: &str, address: &Address) -> String {
    let (protocol, usual) = if address.tls { ("https", 443) } else { ("http", 80) };
    match (bind, address.port) {
        ("", port) if port == usual => protocol.to_owned(),
        ("", port) => format!("{protocol}-{port}"),
        (bind, port) => format!("{protocol}-{}-{port}", bind.replace(':', "_")),
    }
}

fn bound(bind: &str, port: u16) -> String {
    match bind {
        "" => format!(":{port}"),
        bind if bind.contains(':') => format!("[{}]:{port}", bind.trim_matches(['[', ']'])),
        bind => format!("{bind}:{port}"),
    }
}
