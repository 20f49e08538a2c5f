//! Which addresses a demo cluster uses: the same ports on every node, a loopback address for each.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::home::Home;

/// Most nodes of a demo cluster.
pub const MAX_NODES: u8 = 9;
const DEFAULT_NODES: u8 = 3;
/// How many free ports of the first node are tried on the others.
const MAX_ATTEMPTS: usize = 50;

/// Ports and node count; kept beside the nodes, since the cluster remembers its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// How many nodes there are; they are numbered from 1.
    pub count: u8,
    /// Plain listener of the site.
    pub http: u16,
    /// TLS listener of the site.
    pub https: u16,
    /// Gossip and peer RPC.
    pub cluster: u16,
    /// Operator gRPC.
    pub admin: u16,
    /// Readiness and metrics.
    pub ops: u16,
    /// The demo origins.
    pub origins: [u16; 2],
}

impl Layout {
    /// The layout of the last run in `home`, grown to `wanted` nodes, or a new one on ports that are free now.
    pub fn load_or_choose(home: &Home, wanted: Option<u8>) -> anyhow::Result<Self> {
        let layout = match Self::load(home)? {
            Some(saved) => Self { count: wanted.unwrap_or(saved.count).max(saved.count), ..saved },
            None => Self::choose(wanted.unwrap_or(DEFAULT_NODES))?,
        };
        layout.check_free()?;
        let file = home.layout_file();
        let text = serde_json::to_string_pretty(&layout)?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(layout)
    }

    fn load(home: &Home) -> anyhow::Result<Option<Self>> {
        let file = home.layout_file();
        match fs::read_to_string(&file) {
            Ok(text) => {
                let saved = serde_json::from_str(&text)
                    .with_context(|| format!("{} is not readable", file.display()))?;
                Ok(Some(saved))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// The usual ports where they are free, others where not.
    fn choose(count: u8) -> anyhow::Result<Self> {
        let ips: Vec<IpAddr> = (1..=count).map(node_ip).collect();
        let mut chosen = Vec::new();
        for preferred in [8080, 8443, 7400, 7401, 7402] {
            chosen.push(choose_port(preferred, &ips, &chosen)?);
        }
        for preferred in [9001, 9002] {
            chosen.push(choose_port(preferred, &ips[..1], &chosen)?);
        }
        let [http, https, cluster, admin, ops, first, second] = chosen[..] else {
            anyhow::bail!("there are seven ports");
        };
        Ok(Self { count, http, https, cluster, admin, ops, origins: [first, second] })
    }

    /// A cluster that resumes must find the ports it had, and one that grows needs them on more addresses.
    fn check_free(&self) -> anyhow::Result<()> {
        for node in self.nodes() {
            for port in [self.http, self.https, self.cluster, self.admin, self.ops] {
                let address = SocketAddr::new(node_ip(node), port);
                bind(address).with_context(|| format!("{address}, which node{node} uses, cannot be used"))?;
            }
        }
        Ok(())
    }

    /// The numbers of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.count
    }

    /// Gossip and peer RPC of a node.
    pub fn cluster_addr(&self, node: u8) -> SocketAddr {
        SocketAddr::new(node_ip(node), self.cluster)
    }

    /// Operator gRPC of a node.
    pub fn admin_addr(&self, node: u8) -> SocketAddr {
        SocketAddr::new(node_ip(node), self.admin)
    }

    /// Readiness and metrics of a node.
    pub fn ops_addr(&self, node: u8) -> SocketAddr {
        SocketAddr::new(node_ip(node), self.ops)
    }
}

/// The loopback address of a node: the whole of 127.0.0.0/8 is the machine itself.
pub fn node_ip(node: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, node))
}

/// `preferred`, if it is free on all of `ips`, else any port that is.
fn choose_port(preferred: u16, ips: &[IpAddr], taken: &[u16]) -> anyhow::Result<u16> {
    let free = |port: u16| ips.iter().try_for_each(|ip| bind(SocketAddr::new(*ip, port)));
    if !taken.contains(&preferred) && free(preferred).is_ok() {
        return Ok(preferred);
    }
    let mut last = None;
    for _ in 0..MAX_ATTEMPTS {
        let port = TcpListener::bind((ips[0], 0))?.local_addr()?.port();
        match free(port) {
            Ok(()) if !taken.contains(&port) => return Ok(port),
            Ok(()) => {}
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(|| "all are taken".to_owned(), |error| error.to_string());
    anyhow::bail!("no port is free on {} to {}: {why}", ips[0], ips[ips.len() - 1])
}

/// Whether both protocols could be served there.
fn bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address)?;
    UdpSocket::bind(address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_avoided_on_every_address() {
        let ips = [node_ip(1), node_ip(2)];
        let taken = TcpListener::bind((ips[1], 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let chosen = choose_port(port, &ips, &[]).unwrap();
        assert_ne!(chosen, port);
        assert_ne!(choose_port(chosen, &ips, &[chosen]).unwrap(), chosen);
    }

    #[test]
    fn a_second_run_needs_the_ports_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path())).unwrap();
        let taken = TcpListener::bind((node_ip(1), 0)).unwrap();
        let ops = taken.local_addr().unwrap().port();
        // Port 0 is always free: only the one that is taken can be complained of.
        let first = Layout { count: 2, http: 0, https: 0, cluster: 0, admin: 0, ops, origins: [0, 0] };
        fs::write(home.layout_file(), serde_json::to_string(&first).unwrap()).unwrap();
        assert_eq!(Layout::load(&home).unwrap(), Some(first));
        let error = format!("{:#}", Layout::load_or_choose(&home, None).unwrap_err());
        assert!(error.starts_with(&format!("127.0.0.1:{ops}, which node1 uses, cannot be used")), "{error}");
    }

    #[test]
    fn a_cluster_grows_and_never_shrinks() {
        for (wanted, count) in [(None, 2), (Some(1), 2), (Some(3), 3)] {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::open(Some(dir.path())).unwrap();
            let saved = Layout { count: 2, http: 0, https: 0, cluster: 0, admin: 0, ops: 0, origins: [0, 0] };
            fs::write(home.layout_file(), serde_json::to_string(&saved).unwrap()).unwrap();
            assert_eq!(Layout::load_or_choose(&home, wanted).unwrap().count, count, "{wanted:?}");
        }
    }
}
