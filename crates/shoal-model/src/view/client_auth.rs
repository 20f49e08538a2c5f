//! Certificates that downstreams show, compiled.

use std::sync::Arc;

use crate::site::{ClientAuth, ClientAuthMode};

/// Whom a listener believes, and what it makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthView {
    /// Authorities, PEM.
    pub ca_pem: Arc<str>,
    /// What they have revoked, PEM; `None` = nobody asks.
    pub crl_pem: Option<Arc<str>>,
    /// Whether a certificate must be shown.
    pub mode: ClientAuthMode,
    /// Endpoints are told.
    pub forward: bool,
}

impl ClientAuthView {
    /// Errs while a file has not been read in.
    pub(super) fn compile(auth: &ClientAuth) -> Result<Self, &'static str> {
        let read = "its files were not read in before it was compiled";
        if auth.crl_file.is_some() {
            return Err(read);
        }
        Ok(Self {
            ca_pem: auth.ca_pem.as_deref().ok_or(read)?.into(),
            crl_pem: auth.crl_pem.as_deref().map(Into::into),
            mode: auth.mode.unwrap_or_default(),
            forward: auth.forward,
        })
    }
}
