//! The site files of the stories, built up in a few words.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::certificate::SelfSigned;
use crate::node::Ports;

/// A site under construction; JSON, which `shoal apply` reads like YAML.
#[derive(Clone, Debug)]
pub struct SiteFile(Value);

impl SiteFile {
    /// One clear-text listener `web`, nothing else.
    pub fn new() -> Self {
        Self(
            json!({ "listeners": { "web": { "address": format!(":{}", Ports::HTTP), "protocol": "http" } } }),
        )
    }

    /// Adds the upstream `name` and the route `name`: every host, every path, not cached.
    pub fn proxy(self, name: &str, endpoints: &[String]) -> Self {
        self.upstream(name, json!({ "endpoints": endpoints }))
            .route(name, json!({ "path_prefix": "/", "upstream": name }))
    }

    /// Adds the upstream `name` and the route `name`: every host, every path, cached as RFC 9111 says.
    pub fn cached(self, name: &str, endpoints: &[String]) -> Self {
        self.upstream(name, json!({ "endpoints": endpoints }))
            .route(name, json!({ "path_prefix": "/", "upstream": name, "cache": {} }))
    }

    /// The same, whatever may have been purged meanwhile: a disk that stalls longer than a lease lasts has hits validated for a
    /// moment, which says nothing of copies.
    pub fn cached_unverified(self, name: &str, endpoints: &[String]) -> Self {
        let cache = json!({ "purge_unverified": "serve" });
        self.upstream(name, json!({ "endpoints": endpoints }))
            .route(name, json!({ "path_prefix": "/", "upstream": name, "cache": cache }))
    }

    /// Adds a TLS listener `secure` with the certificate `name`.
    pub fn secure(self, name: &str, chain_file: &Path, key_file: &Path) -> Self {
        self.set("certificates", name, json!({ "chain_file": chain_file, "key_file": key_file })).set(
            "listeners",
            "secure",
            json!({ "address": format!(":{}", Ports::HTTPS), "protocol": "https", "certificates": [name] }),
        )
    }

    /// The same with one that was made for the story.
    pub fn secure_by(self, name: &str, certificate: &SelfSigned) -> Self {
        self.secure(name, &certificate.chain_file, &certificate.key_file)
    }

    /// Adds or replaces a route.
    pub fn route(self, name: &str, route: Value) -> Self {
        self.set("routes", name, route)
    }

    /// Adds or replaces an upstream.
    pub fn upstream(self, name: &str, upstream: Value) -> Self {
        self.set("upstreams", name, upstream)
    }

    /// Adds or replaces any object.
    pub fn set(mut self, kind: &str, name: &str, object: Value) -> Self {
        if self.0[kind].is_null() {
            self.0[kind] = Value::Object(Map::new());
        }
        self.0[kind][name] = object;
        self
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        format!("{:#}", self.0)
    }

    /// Writes the file.
    pub fn write(&self, file: &Path) -> Result<()> {
        Ok(std::fs::write(file, self.text())?)
    }
}

impl Default for SiteFile {
    fn default() -> Self {
        Self::new()
    }
}
