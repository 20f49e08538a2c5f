//! What this node proves itself with: replaced under way, so that a new certificate needs no new process.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};

use super::{
    ALPN_H2, ALPN_HTTP1, TlsError, admin_server_config, peer_client_config, peer_server_config,
    unproven_client_config,
};
use crate::identity::Identity;

/// A node's identity as it is now, and every TLS configuration that follows from it. Clones share everything: a connection
/// that is made after a replacement is made with what came.
#[derive(Clone)]
pub struct Credentials {
    current: Arc<ArcSwap<Current>>,
}

struct Current {
    /// Counts replacements.
    generation: u64,
    identity: Arc<Identity>,
    peer_server: Arc<ServerConfig>,
    admin_server: Arc<ServerConfig>,
    h2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    unproven: Arc<ClientConfig>,
}

impl Current {
    fn of(identity: Identity, generation: u64) -> Result<Self, TlsError> {
        Ok(Self {
            generation,
            peer_server: peer_server_config(&identity)?,
            admin_server: admin_server_config(&identity)?,
            h2: peer_client_config(&identity, ALPN_H2)?,
            http1: peer_client_config(&identity, ALPN_HTTP1)?,
            unproven: unproven_client_config(&identity)?,
            identity: Arc::new(identity),
        })
    }
}

impl Credentials {
    /// Those of a node that starts.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Current::of(identity, 0)?)) })
    }

    /// From now on connections are made with this one. Those that are open stay as they are.
    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        let generation = self.generation() + 1;
        self.current.store(Arc::new(Current::of(identity, generation)?));
        Ok(())
    }

    /// Who this node is.
    pub fn identity(&self) -> Arc<Identity> {
        self.current.load().identity.clone()
    }

    /// Another number after each replacement.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// See [`peer_server_config`].
    pub fn peer_server(&self) -> Arc<ServerConfig> {
        self.current.load().peer_server.clone()
    }

    /// See [`admin_server_config`].
    pub fn admin_server(&self) -> Arc<ServerConfig> {
        self.current.load().admin_server.clone()
    }

    fn client(&self, speaks: Speaks) -> Arc<ClientConfig> {
        let current = self.current.load();
        match speaks {
            Speaks::Http2 => current.h2.clone(),
            Speaks::Http1 => current.http1.clone(),
            Speaks::Unproven => current.unproven.clone(),
        }
    }
}

/// What a connection to another node is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaks {
    /// gRPC.
    Http2,
    /// Cache bodies.
    Http1,
    /// gRPC of one who has nothing to show any more.
    Unproven,
}

/// The client's side of TLS, as it is when a connection is made.
#[derive(Clone)]
pub(crate) enum ClientSide {
    /// This node's.
    Of(Credentials, Speaks),
    /// Always the same.
    Fixed(Arc<ClientConfig>),
}

impl ClientSide {
    pub(crate) fn now(&self) -> Arc<ClientConfig> {
        match self {
            Self::Of(credentials, speaks) => credentials.client(*speaks),
            Self::Fixed(config) => config.clone(),
        }
    }
}
