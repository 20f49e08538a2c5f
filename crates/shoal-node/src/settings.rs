//! What a node is told when it starts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shoal_model::state::SetupOrder;

use crate::dns::DnsLimits;
use crate::ready_scopes::ReadyRules;

/// How much of a disk the cache may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheDisk {
    /// A share of what is free when the node starts.
    Auto,
    /// Nothing: objects are kept in memory only.
    Off,
    /// So many bytes.
    Bytes(u64),
}

/// Everything `shoal run` takes.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// Identity, log, snapshots, last-known-good site, local socket.
    pub data_dir: PathBuf,
    /// Default: the host's name; a node that joins adds the first characters of its key.
    pub name: Option<String>,
    /// Where the node stands, for placement.
    pub region: String,
    /// Where in the region.
    pub zone: String,
    /// Gossip (UDP) and peer RPC (TCP).
    pub cluster_addr: SocketAddr,
    /// Operator gRPC, mutual TLS.
    pub admin_addr: SocketAddr,
    /// Plain HTTP: `/livez`, `/readyz`, `/metrics`.
    pub ops_addr: SocketAddr,
    /// Where questions over DNS are answered; none = nowhere.
    pub dns_listen: Vec<SocketAddr>,
    /// What those may take.
    pub dns_limits: DnsLimits,
    /// Where downstreams reach this node, as they are answered over DNS.
    pub public_addresses: Vec<IpAddr>,
    /// How many looks readiness takes.
    pub ready_rules: ReadyRules,
    /// What a new cluster is founded with; of a node that joins, what it expects of the cluster.
    pub setup: SetupOrder,
    /// Nodes of the cluster to enter; empty = bootstrap a new one.
    pub join: Vec<String>,
    /// Needed to enter a cluster for the first time.
    pub token: Option<String>,
    /// Worker threads; default one per core.
    pub workers: Option<usize>,
    /// Site file applied to a new cluster.
    pub apply: Option<PathBuf>,
    /// Host for site listeners written as `":PORT"`.
    pub listen_ip: IpAddr,
    /// One JSON line per request on stderr.
    pub access_log: bool,
    /// Bytes of cached objects kept in memory.
    pub cache_memory_bytes: u64,
    /// Bytes of copies from other nodes that are read at once, beside those.
    pub cache_intake_bytes: u64,
    /// Purges that may be asked for here in a second.
    pub purge_rate: u32,
    /// How long hits are served after a majority has said how far the log is committed.
    pub purge_lease: Duration,
    /// For so long are purges remembered for the sake of a member that is away.
    pub purge_retention: Duration,
    /// Bytes of cached objects kept on disk.
    pub cache_disk: CacheDisk,
    /// Where they are kept; default `cache` in the data directory.
    pub cache_dir: Option<PathBuf>,
    /// How long a new revision is served until it counts as good; one that two processes have died of before is refused.
    /// Zero = none is.
    pub crash_guard: Duration,
    /// How long a worker, or the control runtime, may go without a tick though it could until the process is ended; zero =
    /// for ever.
    pub watchdog: Duration,
    /// How long a node that was told to stop still accepts, so that balancers see it is not ready.
    pub drain_delay: Duration,
    /// Withdraws what leads here before the node leaves service, and announces it once it serves; called with `withdraw` or
    /// `announce`.
    pub drain_hook: Option<PathBuf>,
    /// How long that may take.
    pub drain_hook_timeout: Duration,
    /// How long requests under way may take after that.
    pub drain_timeout: Duration,
    /// What it meanwhile gives of its cache to those that own it from then on; 0 = nothing.
    pub handover_bytes_per_second: u64,
    /// The file that an upgrade starts, with this process's own arguments; `None` = this node cannot be upgraded.
    pub program: Option<PathBuf>,
    /// Gives memory that is free in the calling thread back to the system: the allocator is the program's choice.
    pub trim_memory: fn(),
}
