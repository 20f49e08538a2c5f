//! The sockets of a node beside those of its site: bound, or taken over from the process before.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context;
use shoal_proxy::Owner;

use super::Role;
use crate::activated::SocketKind;
use crate::dns::DnsSockets;
use crate::settings::RunSettings;

/// Sockets that were bound before this process began; none at an ordinary start.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(Role, OwnedFd)>,
    /// Another process accepts on them still.
    pub still_served: bool,
    /// Whoever has bound those of the site keeps them open.
    pub owner: Owner,
    /// In which scopes that one was ready.
    pub was_ready: String,
}

impl Inherited {
    /// What comes from a process that accepts on the sockets of the site still.
    pub(super) fn from_predecessor(owner: Owner, was_ready: String) -> Self {
        Self { sockets: Vec::new(), still_served: true, owner, was_ready }
    }

    /// What a service manager has bound. Those that no setting of the node names are for the site.
    pub fn from_manager(settings: &RunSettings, sockets: Vec<(SocketKind, OwnedFd)>) -> anyhow::Result<Self> {
        let mut inherited = Self { owner: Owner::Manager, ..Self::default() };
        let (local_admin, door) = (local_admin_path(settings), door_path(settings));
        for (kind, socket) in sockets {
            let role = match kind {
                SocketKind::Tcp => {
                    let socket = TcpListener::from(socket.try_clone()?);
                    socket.set_nonblocking(true)?;
                    match socket.local_addr()? {
                        address if address == settings.cluster_addr => Role::Cluster,
                        address if address == settings.admin_addr => Role::Admin,
                        address if address == settings.ops_addr => Role::Ops,
                        address if settings.dns_listen.contains(&address) => Role::DnsTcp,
                        _ => Role::Site,
                    }
                }
                SocketKind::Udp => match UdpSocket::from(socket.try_clone()?).local_addr()? {
                    address if settings.dns_listen.contains(&address) => Role::DnsUdp,
                    _ => Role::Gossip,
                },
                SocketKind::Local => {
                    let address = UnixListener::from(socket.try_clone()?).local_addr()?;
                    match address.as_pathname() {
                        Some(path) if path == local_admin => Role::LocalAdmin,
                        Some(path) if path == door => Role::Door,
                        _ => anyhow::bail!("the local socket {address:?} that was passed is of no use here"),
                    }
                }
            };
            tracing::info!(?role, "a socket was passed by the service manager");
            inherited.push(role, socket);
        }
        Ok(inherited)
    }

    pub(super) fn push(&mut self, role: Role, descriptor: OwnedFd) {
        self.sockets.push((role, descriptor));
    }

    fn take(&mut self, role: Role) -> Option<OwnedFd> {
        let place = self.sockets.iter().position(|(known, _)| *known == role)?;
        Some(self.sockets.remove(place).1)
    }

    /// The one of that role that `fits`; others of it stay.
    fn take_if(&mut self, role: Role, fits: impl Fn(&OwnedFd) -> bool) -> Option<OwnedFd> {
        let place = self.sockets.iter().position(|(known, socket)| *known == role && fits(socket))?;
        Some(self.sockets.remove(place).1)
    }

    /// Binds the addresses of `settings` that nobody has bound before, for [`NodeSockets::open`] to take.
    pub fn bind(&mut self, settings: &RunSettings) -> anyhow::Result<()> {
        let cluster = self.tcp(Role::Cluster, "cluster", settings.cluster_addr)?;
        let gossip = self.udp(Role::Gossip, "gossip", settings.cluster_addr)?;
        let admin = self.tcp(Role::Admin, "admin", settings.admin_addr)?;
        let ops = self.tcp(Role::Ops, "ops", settings.ops_addr)?;
        let dns = self.dns(settings)?;
        self.push(Role::Cluster, cluster.into());
        self.push(Role::Gossip, gossip.into());
        self.push(Role::Admin, admin.into());
        self.push(Role::Ops, ops.into());
        for DnsSockets { udp, tcp } in dns {
            self.push(Role::DnsUdp, udp.into());
            self.push(Role::DnsTcp, tcp.into());
        }
        Ok(())
    }

    /// The sockets of the site.
    pub fn take_site(&mut self) -> Vec<TcpListener> {
        std::iter::from_fn(|| self.take(Role::Site)).map(TcpListener::from).collect()
    }

    /// The socket on `address`, or a new one.
    fn tcp(&mut self, role: Role, what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let inherited = self.take_if(role, |socket| is_bound_to(socket, address)).map(TcpListener::from);
        let flag = flag_of(role, what);
        let socket = inherited.map_or_else(|| TcpListener::bind(address), Ok).with_context(|| {
            format!("cannot listen on the {what} address {address}; is it taken? choose another with {flag}")
        })?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn udp(&mut self, role: Role, what: &str, address: SocketAddr) -> anyhow::Result<UdpSocket> {
        let inherited = self.take_if(role, |socket| is_bound_to(socket, address)).map(UdpSocket::from);
        let socket = inherited.map_or_else(|| UdpSocket::bind(address), Ok);
        let socket = socket.with_context(|| format!("cannot receive {what} on {address}/udp"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn dns(&mut self, settings: &RunSettings) -> anyhow::Result<Vec<DnsSockets>> {
        let both = |address: &SocketAddr| {
            Ok(DnsSockets {
                udp: self.udp(Role::DnsUdp, "questions over DNS", *address)?,
                tcp: self.tcp(Role::DnsTcp, "dns", *address)?,
            })
        };
        settings.dns_listen.iter().map(both).collect()
    }

    fn local(&mut self, role: Role, path: &Path) -> anyhow::Result<UnixListener> {
        let socket = match self.take(role) {
            Some(descriptor) => UnixListener::from(descriptor),
            None => bind_local(path)?,
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Bound before anything starts, so that a taken port ends the start; kept, so that they can be handed on.
#[derive(Debug)]
pub struct NodeSockets {
    /// Peer RPC.
    pub cluster: TcpListener,
    /// Gossip.
    pub gossip: UdpSocket,
    /// Operators, from afar.
    pub admin: TcpListener,
    /// `/livez`, `/readyz`, `/metrics`.
    pub ops: TcpListener,
    /// Who asks over DNS.
    pub dns: Vec<DnsSockets>,
    /// Operators, on this machine.
    pub local_admin: UnixListener,
    /// Who asks for an upgrade.
    pub door: UnixListener,
}

impl NodeSockets {
    /// Takes over what fits the settings, and binds the rest.
    pub fn open(settings: &RunSettings, inherited: &mut Inherited) -> anyhow::Result<Self> {
        Ok(Self {
            cluster: inherited.tcp(Role::Cluster, "cluster", settings.cluster_addr)?,
            gossip: inherited.udp(Role::Gossip, "gossip", settings.cluster_addr)?,
            admin: inherited.tcp(Role::Admin, "admin", settings.admin_addr)?,
            ops: inherited.tcp(Role::Ops, "ops", settings.ops_addr)?,
            dns: inherited.dns(settings)?,
            local_admin: inherited.local(Role::LocalAdmin, &local_admin_path(settings))?,
            door: inherited.local(Role::Door, &door_path(settings))?,
        })
    }

    /// The sockets of DNS once more, for who answers.
    pub fn dns_copies(&self) -> io::Result<Vec<DnsSockets>> {
        let copy = |one: &DnsSockets| Ok(DnsSockets { udp: one.udp.try_clone()?, tcp: one.tcp.try_clone()? });
        self.dns.iter().map(copy).collect()
    }

    pub(super) fn all(&self) -> Vec<(Role, BorrowedFd<'_>)> {
        let mut all = vec![
            (Role::Cluster, self.cluster.as_fd()),
            (Role::Gossip, self.gossip.as_fd()),
            (Role::Admin, self.admin.as_fd()),
            (Role::Ops, self.ops.as_fd()),
            (Role::LocalAdmin, self.local_admin.as_fd()),
            (Role::Door, self.door.as_fd()),
        ];
        for one in &self.dns {
            all.extend([(Role::DnsUdp, one.udp.as_fd()), (Role::DnsTcp, one.tcp.as_fd())]);
        }
        all
    }
}

/// Whether a socket of either kind is bound to it: both have the same names for addresses.
fn is_bound_to(socket: &OwnedFd, address: SocketAddr) -> bool {
    let bound = socket.try_clone().map(TcpListener::from).and_then(|socket| socket.local_addr());
    bound.is_ok_and(|bound| bound == address)
}

/// What says where such a socket is.
fn flag_of(role: Role, what: &str) -> String {
    match role {
        Role::DnsTcp => "--dns-listen".to_owned(),
        _ => format!("--{what}-addr"),
    }
}

fn local_admin_path(settings: &RunSettings) -> PathBuf {
    settings.data_dir.join("admin.sock")
}

fn door_path(settings: &RunSettings) -> PathBuf {
    settings.data_dir.join(super::door::NAME)
}

/// Binds a local socket, taking the place of one that a dead process left behind.
fn bind_local(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let socket = UnixListener::bind(path).with_context(|| format!("cannot bind {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}
