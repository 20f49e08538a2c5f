//! One look-up of one name: the questions it takes, and what name servers say.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use shoal_model::site::AddressFamily;
use shoal_model::view::{ResolverView, host_of_service};
use shoal_policy::discovery::{Outcome, Part, Record, may_lead_to};
use tokio::time::timeout;

use super::{Question, Wanted};

/// Most hosts of a service that are looked up; the lowest priorities go first.
const MAX_TARGETS: usize = 64;
/// Hosts of a service that are looked up at once.
const TARGETS_AT_ONCE: usize = 8;
/// Name servers that the system has at most (resolv.conf(5)).
const MAX_SYSTEM_SERVERS: u32 = 3;

/// Asks everything that `question` takes. Settings of the system are read anew each time: they may have changed.
pub(super) async fn look_up(question: &Question) -> Vec<Part> {
    let failed =
        |why: String| vec![Part { target: "".into(), is_ipv6: false, outcome: Outcome::Failed(why) }];
    let view = question.resolver.clone();
    // It reads files.
    let built = tokio::task::spawn_blocking(move || Asker::build(&view)).await;
    let asker = match built {
        Ok(Ok(asker)) => asker,
        Ok(Err(error)) => return failed(error.to_string()),
        Err(error) => return failed(error.to_string()),
    };
    let asked = match Name::from_ascii(question.name()) {
        Ok(name) => asker.ask_all(question, name, &question.resolver),
        Err(error) => return failed(error.to_string()),
    };
    asked.await
}

/// What asks name servers.
struct Asker {
    resolver: TokioResolver,
    /// Of the system; empty where name servers are written.
    hosts: Hosts,
    /// Names are taken as they are, whatever the system would append to them.
    is_literal: bool,
}

impl Asker {
    fn build(view: &ResolverView) -> Result<Self, NetError> {
        let is_literal = !view.servers.is_empty();
        let (config, mut options, hosts) = if is_literal {
            let servers = view.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            (config, ResolverOpts::default(), Hosts::default())
        } else {
            // A system without name servers may know all it needs from its list of hosts.
            let (config, options) = read_system_conf().unwrap_or_default();
            (config, options, Hosts::from_system().unwrap_or_default())
        };
        options.timeout = view.timeout;
        options.attempts = view.attempts.saturating_sub(1) as usize;
        // How long answers are good is decided elsewhere.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build()?, hosts, is_literal })
    }

    async fn ask_all(&self, question: &Question, mut name: Name, view: &ResolverView) -> Vec<Part> {
        if self.is_literal {
            name.set_fqdn(true);
        }
        match &question.wanted {
            Wanted::Host(host) => self.ask_host(name, "", &[Entry::default()], host, view).await,
            Wanted::Service(service) => self.ask_service(name, host_of_service(service), view).await,
        }
    }

    /// The hosts of a service, and then the addresses of each.
    async fn ask_service(&self, name: Name, host: &str, view: &ResolverView) -> Vec<Part> {
        let part = |outcome| vec![Part { target: "".into(), is_ipv6: false, outcome }];
        let found = match self.ask(name, RecordType::SRV, view).await {
            Ok(Some(found)) => found,
            Ok(None) => return part(Outcome::Nothing),
            Err(why) => return part(Outcome::Failed(why)),
        };
        let ttl = ttl_of(&found);
        let mut records: Vec<&SRV> = found.answers().iter().filter_map(srv).collect();
        records.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
        let mut targets: BTreeMap<Name, Vec<Entry>> = BTreeMap::new();
        for srv in records {
            // The root says that there is no such service (RFC 2782).
            if !srv.target.is_root() && (targets.len() < MAX_TARGETS || targets.contains_key(&srv.target)) {
                let entry = Entry { priority: srv.priority, weight: srv.weight, port: Some(srv.port), ttl };
                targets.entry(srv.target.clone()).or_default().push(entry);
            }
        }
        let asked = targets.into_iter().map(|(target, entries)| async move {
            let text = target.to_ascii().to_ascii_lowercase();
            self.ask_host(target, &text, &entries, host, view).await
        });
        let parts: Vec<Vec<Part>> = stream::iter(asked).buffer_unordered(TARGETS_AT_ONCE).collect().await;
        match parts.is_empty() {
            true => part(Outcome::Nothing),
            false => parts.concat(),
        }
    }

    /// The addresses of the host `name`, which is there once for each of `entries`.
    async fn ask_host(
        &self,
        name: Name,
        target: &str,
        entries: &[Entry],
        host: &str,
        view: &ResolverView,
    ) -> Vec<Part> {
        let (v4, v6) = match view.family {
            AddressFamily::Any => (true, true),
            AddressFamily::Ipv4 => (true, false),
            AddressFamily::Ipv6 => (false, true),
        };
        let ask = async |is_ipv6: bool| {
            let kind = if is_ipv6 { RecordType::AAAA } else { RecordType::A };
            let outcome = match self.ask(name.clone(), kind, view).await {
                Ok(Some(found)) => {
                    outcome(&found, target, entries, |ip| may_lead_to(host, ip, view.allow_loopback))
                }
                Ok(None) => Outcome::Nothing,
                Err(why) => Outcome::Failed(why),
            };
            Part { target: target.into(), is_ipv6, outcome }
        };
        match (v4, v6) {
            (true, true) => {
                let (v4, v6) = tokio::join!(ask(false), ask(true));
                vec![v4, v6]
            }
            (_, is_ipv6) => vec![ask(is_ipv6).await],
        }
    }

    /// One question. `None` = there are no such records.
    async fn ask(&self, name: Name, kind: RecordType, view: &ResolverView) -> Result<Option<Lookup>, String> {
        if let Some(listed) = self.listed(&name) {
            let of_kind = listed.into_iter().find(|found| found.query().query_type() == kind);
            return Ok(of_kind);
        }
        let servers = if self.is_literal { view.servers.len() as u32 } else { MAX_SYSTEM_SERVERS };
        let whole = view.timeout * view.attempts * servers.max(1);
        let asked = timeout(whole, self.resolver.lookup(name, kind)).await;
        match asked.map_err(|_| NO_ANSWER.to_owned())? {
            Ok(found) if found.answers().is_empty() => Ok(None),
            Ok(found) => Ok(Some(found)),
            Err(error) => why(error).map_or(Ok(None), Err),
        }
    }

    /// What the system's list of hosts says: it is believed, and nobody else asked, if it knows the name at all.
    fn listed(&self, name: &Name) -> Option<Vec<Lookup>> {
        let mut name = name.clone();
        name.set_fqdn(true);
        let kinds = [RecordType::A, RecordType::AAAA];
        let found = kinds.iter().filter_map(|kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), *kind))?;
            (!found.answers().is_empty()).then_some(found)
        });
        let found: Vec<Lookup> = found.collect();
        (!found.is_empty()).then_some(found)
    }
}

/// An SRV record less its target; the default stands for a name that is looked up itself.
#[derive(Clone, Copy)]
struct Entry {
    priority: u16,
    weight: u16,
    port: Option<u16>,
    ttl: Duration,
}

impl Default for Entry {
    fn default() -> Self {
        Self { priority: 0, weight: 0, port: None, ttl: Duration::MAX }
    }
}

const NO_ANSWER: &str = "no answer in time";

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let ports = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, ports.into())
}

/// What an error means; `None` = that there are no such records.
fn why(error: NetError) -> Option<String> {
    match error {
        NetError::Timeout => Some(NO_ANSWER.to_owned()),
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => None,
            code => Some(code.to_str().to_owned()),
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => None,
        NetError::Dns(DnsError::ResponseCode(code)) => Some(code.to_str().to_owned()),
        // Parts of it may come from the network.
        error => Some(error.to_string().escape_debug().to_string()),
    }
}

/// The addresses in an answer, but for those a name may not lead to.
fn outcome(found: &Lookup, target: &str, entries: &[Entry], may: impl Fn(IpAddr) -> bool) -> Outcome {
    let ips = || found.answers().iter().filter_map(|record| record.data.ip_addr());
    let allowed: Vec<IpAddr> = ips().filter(|ip| may(*ip)).collect();
    if allowed.is_empty() {
        return match ips().next() {
            Some(ip) => Outcome::Failed(format!("it leads to {ip}, where names may not lead")),
            None => Outcome::Nothing,
        };
    }
    let record = |entry: &Entry, ip: IpAddr| Record {
        priority: entry.priority,
        ip,
        port: entry.port,
        weight: entry.weight,
        target: target.into(),
    };
    let records = entries.iter().flat_map(|entry| allowed.iter().map(|ip| record(entry, *ip))).collect();
    let ttl = entries.iter().map(|entry| entry.ttl).fold(ttl_of(found), Duration::min);
    Outcome::Found(records, ttl)
}

/// The shortest of its records, those of aliases included.
fn ttl_of(found: &Lookup) -> Duration {
    let shortest = found.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(shortest.unwrap_or_default().into())
}

fn srv(record: &hickory_resolver::proto::rr::Record) -> Option<&SRV> {
    match &record.data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    }
}
