//! `shoal run`: flags become the settings of a node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use shoal_ctl::{Exit, Failure};
use shoal_model::state::{SetupOrder, Timing, voter_limit};
use shoal_model::units::{ByteSize, Period};
use shoal_node::{
    CacheDisk, DnsLimits, LONGEST_LEASE, MAX_PUBLIC_ADDRESSES, ReadyRule, ReadyRules, ReadyScope,
    RunSettings, SHORTEST_LEASE, SHORTEST_WATCHDOG,
};

use crate::core_dump;

/// Least memory for cached objects, bytes.
const LEAST_CACHE_MEMORY: u64 = 1 << 20;
/// The shortest absence that purges are remembered for.
const LEAST_RETENTION: Period = Period::seconds(10);
/// Least disk for them, bytes.
const LEAST_CACHE_DISK: u64 = 8 << 20;

/// Run a node
///
/// On an empty directory without --join this makes a new cluster of one node; with --join the node enters a cluster.
/// On a used directory it resumes, even when no other node can be reached.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal run --data-dir /var/lib/shoal --apply site.yaml
  shoal run --data-dir /var/lib/shoal --cluster-addr 10.0.0.2:7400 --join 10.0.0.1:7400 --token shj1.…

Writes nothing to stdout; the log goes to stderr, as RUST_LOG says [default: info, and of the
libraries for consensus and HTTP/2 only errors].
Signals: TERM and INT drain and stop, a second one stops at once; HUP opens access logs anew, looks names up and reads the
system's authorities; USR2 hands over to a new process (`shoal upgrade`); QUIT tells the state on the log.")]
pub struct RunArgs {
    /// Identity, log, last-known-good site and admin.sock are kept here
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of this node [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Where it stands
    #[arg(long, default_value = "default")]
    region: String,
    /// Where in the region
    #[arg(long, default_value = "default")]
    zone: String,
    /// Gossip (UDP) and peer RPC (TCP), mutual TLS; other nodes must reach it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", value_parser = socket_address)]
    cluster_addr: SocketAddr,
    /// Operator gRPC, mutual TLS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7401", value_parser = socket_address)]
    admin_addr: SocketAddr,
    /// Plain HTTP: /livez /readyz /metrics, and /v1/purge for who has a token
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7402", value_parser = socket_address)]
    ops_addr: SocketAddr,
    /// Answer over DNS for the `dns_zones` of the site, by UDP and TCP; once for each address that is asked [default: none]
    #[arg(long, value_name = "ADDR", value_parser = dns_address)]
    dns_listen: Vec<SocketAddr>,
    /// Answers a second over UDP to one network, a /24 of IPv4 or a /56 of IPv6; 0 = as many as are asked for
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    dns_rate: u32,
    /// Connections at once of those who ask over TCP, an eighth of them for one address
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    dns_max_connections: u16,
    /// Where downstreams reach this node, as every node that answers over DNS tells them; once for each, at most 8 [default:
    /// none]
    #[arg(long = "public-address", value_name = "IP", value_parser = public_address)]
    public_addresses: Vec<IpAddr>,
    /// Looks, one a second, that readiness in a scope of /readyz takes: good ones in a row to become ready, bad ones to cease
    /// to be; once for each of bgp, dns and lb [default: 3/2 in each]
    #[arg(long, value_name = "SCOPE=RISE/FALL", value_parser = ready_rule)]
    ready_looks: Vec<(ReadyScope, ReadyRule)>,
    /// How patient the nodes of a new cluster are with each other: `lan` for one region, `small` for shared machines or slow
    /// disks, `wan` for several regions [default: lan or small, as the disk is fast]
    #[arg(long, value_name = "lan|small|wan")]
    timing: Option<Timing>,
    /// How many nodes of a new cluster vote at most: 3, 5 or 7 [default: 5]
    #[arg(long, value_name = "N", value_parser = voter_limit)]
    max_voters: Option<u8>,
    /// Cluster addresses of nodes to join [default: none, a new cluster]
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',')]
    join: Vec<String>,
    /// From `shoal token create`; needed, with --join, to join for the first time
    #[arg(long, env = "SHOAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Site file that a new cluster begins with [default: none]
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
    /// Host of listeners that the site writes as ":PORT"
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    listen_ip: IpAddr,
    /// Write a JSON line per request, or connection carried, to stderr where a listener has no log of its own [default: none]
    #[arg(long)]
    access_log: bool,
    /// Memory for cached objects, at least 1MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = cache_memory)]
    cache_memory: ByteSize,
    /// Memory, beside that, for copies from other nodes while they are read; one alone may be larger, others are refused
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = ByteSize::parse)]
    cache_intake: ByteSize,
    /// Purges that may be asked of this node in a second, however many scopes each has
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    purge_rate: u32,
    /// How long hits are served after a majority was last heard, and how long a purge waits at most for a node that is cut
    /// off; 1s to 8s
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = purge_lease)]
    purge_lease: Period,
    /// For how long purges are remembered for a node that is away: after that, and after 2 million of them, what it has
    /// cached is validated before its next use; at least 10s
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = purge_retention)]
    purge_retention: Period,
    /// Disk for cached objects, at least 8MiB: `off`, or `auto` for a tenth of what is free, at most 10GiB
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = cache_disk)]
    cache_disk: CacheDisk,
    /// Where cached objects are kept on disk, a directory for nothing else [default: cache in the data directory]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// How long this node has to serve a new revision until it counts as good: when its process dies of it sooner, twice, what
    /// was good before is served and this one is refused here; 0s: never
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = Period::parse)]
    crash_guard: Period,
    /// How long a worker, or what talks to other nodes and operators, may do nothing that it should, though it has a CPU or wants
    /// none, until this process ends as one that hangs; at least 2s; 0s: never
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = watchdog)]
    watchdog: Period,
    /// How long a node that drains still accepts connections while /readyz already says no: balancers have to notice, and
    /// after a hook routes or DNS
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = Period::parse)]
    drain_delay: Period,
    /// A program that withdraws what leads to this node (routes, DNS) before it drains, called with `withdraw`, and announces
    /// it once it serves, called with `announce`; it finds SHOAL_NODE, SHOAL_REGION and SHOAL_ZONE set [default: none]
    #[arg(long, value_name = "FILE")]
    drain_hook: Option<PathBuf>,
    /// How long the hook may take before it is killed; the drain goes on without it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = Period::parse)]
    drain_hook_timeout: Period,
    /// How long requests under way may take after that
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = Period::parse)]
    drain_timeout: Period,
    /// What a stopping node gives of its cache to the nodes that own it from then on, a second; 0 = nothing
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = ByteSize::parse)]
    handover_rate: ByteSize,
    /// Let the kernel write a core file if this process crashes, which has private keys in it, and debuggers of the same user
    /// look into its memory [default: neither]
    #[arg(long)]
    enable_core_dump: bool,
    /// Stop when this process, which must be the parent, ends
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

impl RunArgs {
    /// Runs the node until it is told to stop.
    pub fn run(self) -> Result<Exit, Failure> {
        if !self.enable_core_dump {
            core_dump::forbid()
                .map_err(|why| Failure::local("run", format!("{why}; --enable-core-dump does without")))?;
        }
        if self.public_addresses.len() > MAX_PUBLIC_ADDRESSES {
            let why = format!("--public-address is given at most {MAX_PUBLIC_ADDRESSES} times");
            return Err(Failure::local("run", why));
        }
        if let Some(parent) = self.parent {
            end_with(parent).map_err(|why| Failure::local("run", why))?;
        }
        let data_dir = self.data_dir.display().to_string();
        // What helps is said where it fails: no other command does.
        shoal_node::run(self.settings())
            .map_err(|error| Failure::local(format!("run {data_dir}"), format!("{error:#}")))?;
        Ok(Exit::Done)
    }

    fn settings(self) -> RunSettings {
        let program = if self.parent.is_none() { own_file() } else { None };
        let mut ready_rules = ReadyRules::default();
        for (scope, rule) in self.ready_looks {
            ready_rules.set(scope, rule);
        }
        RunSettings {
            data_dir: self.data_dir,
            name: self.name,
            region: self.region,
            zone: self.zone,
            cluster_addr: self.cluster_addr,
            admin_addr: self.admin_addr,
            ops_addr: self.ops_addr,
            dns_listen: self.dns_listen,
            dns_limits: DnsLimits {
                rate: self.dns_rate,
                max_connections: usize::from(self.dns_max_connections),
            },
            public_addresses: self.public_addresses,
            ready_rules,
            setup: SetupOrder { timing: self.timing, max_voters: self.max_voters },
            join: self.join,
            token: self.token.filter(|token| !token.is_empty()),
            workers: self.workers.map(usize::from),
            apply: self.apply,
            listen_ip: self.listen_ip,
            access_log: self.access_log,
            cache_memory_bytes: self.cache_memory.0,
            cache_intake_bytes: self.cache_intake.0,
            purge_rate: self.purge_rate,
            purge_lease: self.purge_lease.0,
            purge_retention: self.purge_retention.0,
            cache_disk: self.cache_disk,
            cache_dir: self.cache_dir,
            crash_guard: self.crash_guard.0,
            watchdog: self.watchdog.0,
            drain_delay: self.drain_delay.0,
            drain_hook: self.drain_hook,
            drain_hook_timeout: self.drain_hook_timeout.0,
            drain_timeout: self.drain_timeout.0,
            handover_bytes_per_second: self.handover_rate.0,
            program,
            trim_memory: crate::allocator::trim,
        }
    }
}

/// An address of this machine. Names are not resolved: other nodes are told what is written here, and would resolve it to
/// something else, or not at all.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit_once(':').map_or("7400", |(_, port)| port);
        let port = port.parse::<u16>().unwrap_or(7400);
        format!("write it as IP:PORT, names are not resolved here; e.g. 127.0.0.1:{port}, 10.0.0.1:{port} or [fd00::1]:{port}")
    })
}

/// The port of DNS may be left out.
fn dns_address(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53));
    text.parse().ok().or_else(bare).ok_or_else(|| {
        "write it as IP or IP:PORT, e.g. 192.0.2.53, 192.0.2.53:53 or [2001:db8::53]:53".to_owned()
    })
}

/// What downstreams can connect to.
fn public_address(text: &str) -> Result<IpAddr, String> {
    let address: Option<IpAddr> = text.parse().ok();
    address.filter(|address| !address.is_unspecified() && !address.is_multicast()).ok_or_else(|| {
        "write the address that downstreams connect to, e.g. 192.0.2.1 or 2001:db8::1".to_owned()
    })
}

/// `SCOPE=RISE/FALL`.
fn ready_rule(text: &str) -> Result<(ReadyScope, ReadyRule), String> {
    let (scope, rule) = text.split_once('=').ok_or("write it as SCOPE=RISE/FALL, e.g. bgp=5/2")?;
    Ok((scope.parse().map_err(|why: shoal_node::ReadyScopeError| why.to_string())?, rule.parse()?))
}

/// Less than one object fits into less.
fn cache_memory(text: &str) -> Result<ByteSize, String> {
    let size = ByteSize::parse(text)?;
    if size.0 < LEAST_CACHE_MEMORY {
        return Err(
            "a cache needs at least 1MiB; to cache nothing, leave `cache` out of the routes".to_owned()
        );
    }
    Ok(size)
}

/// It is renewed every half second, and purges wait ten seconds.
fn purge_lease(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match (SHORTEST_LEASE..=LONGEST_LEASE).contains(&period.0) {
        true => Ok(period),
        false => Err(format!("a lease lasts {SHORTEST_LEASE:?} to {LONGEST_LEASE:?}")),
    }
}

/// A restart is no absence.
fn purge_retention(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match period >= LEAST_RETENTION {
        true => Ok(period),
        false => Err("a node that is restarted is away for a moment: at least 10s".to_owned()),
    }
}

/// Who is busy for a moment does not hang.
fn watchdog(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match period.0.is_zero() || period.0 >= SHORTEST_WATCHDOG {
        true => Ok(period),
        false => Err(format!("at least {SHORTEST_WATCHDOG:?}, or 0s for none")),
    }
}

/// A few segments have to fit into it.
fn cache_disk(text: &str) -> Result<CacheDisk, String> {
    match text {
        "auto" => Ok(CacheDisk::Auto),
        "off" => Ok(CacheDisk::Off),
        _ => match ByteSize::parse(text)?.0 {
            ..LEAST_CACHE_DISK => {
                Err("a cache on disk needs at least 8MiB; `off` keeps objects in memory only".to_owned())
            }
            bytes => Ok(CacheDisk::Bytes(bytes)),
        },
    }
}

/// The file this process was started from, by its name: what stands there at the time of an upgrade is the new binary.
fn own_file() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    // So Linux calls a file that was replaced, when a process is started of what is left of it.
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)"));
    Some(replaced.map_or(path.clone(), PathBuf::from))
}

/// Asks the kernel for a SIGTERM at the parent's death, and makes sure it has not died before the question.
#[cfg(target_os = "linux")]
fn end_with(parent: i32) -> Result<(), String> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| error.to_string())?;
    match getppid() {
        Some(pid) if pid.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(format!("process {parent} has ended")),
    }
}

/// There is nothing of the kind elsewhere: nodes outlive a demo cluster that is killed.
#[cfg(not(target_os = "linux"))]
fn end_with(_: i32) -> Result<(), String> {
    Ok(())
}
