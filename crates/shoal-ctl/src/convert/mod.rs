//! Configurations of other proxies written as sites: text in, a site and a report out. Nothing here prints or asks a node.
//!
//! What a file does not say gets Shoal's default, not that of the proxy it was written for. Every limit is there so that
//! no file, however it is nested or includes itself, takes long or much memory.

mod caddy;
mod directive;
mod draft;
mod nginx;
mod pattern;
mod remark;
mod surroundings;
#[cfg(test)]
mod tests;
mod text;
mod units;

use clap::ValueEnum;
use shoal_model::Site;

pub use directive::{Mistake, Place};
pub use remark::{Kind, Remark};
pub use surroundings::{Disk, Surroundings};

/// Deepest nesting of blocks.
pub const MAX_DEPTH: usize = 32;
/// Most files, or snippets, that may be included one in another.
pub const MAX_INCLUDE_DEPTH: usize = 16;
/// Most files and snippets that are included altogether.
pub const MAX_INCLUDES: usize = 1_000;
/// Most bytes that are read, all files together.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// Most directives, once everything is included.
pub const MAX_DIRECTIVES: usize = 500_000;
/// Most routes of the site that comes of it.
pub const MAX_ROUTES: usize = 20_000;
/// Most hosts in these routes, counted for each.
pub const MAX_HOSTS: usize = 200_000;

/// Whose configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// `nginx.conf`.
    Nginx,
    /// A Caddyfile.
    Caddy,
}

/// A site, and what it does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    /// Valid, except that files which it names may not be there.
    pub site: Site,
    /// What was not carried over or changes its meaning, in the order of the text.
    pub report: Vec<Remark>,
}

impl Conversion {
    /// Nothing can be served by this site.
    pub fn serves_nothing(&self) -> bool {
        let carries = self.site.listeners.values().any(|one| one.upstream.is_some() || !one.sni.is_empty());
        self.site.routes.is_empty() && !carries
    }
}

/// Reads `text`, which stands in `file`; what it includes is found in `surroundings`.
///
/// # Errors
/// The first place that is no configuration of that kind, or more of it than the limits allow.
pub fn convert(
    from: Dialect,
    file: &str,
    text: &str,
    surroundings: &dyn Surroundings,
) -> Result<Conversion, Mistake> {
    match from {
        Dialect::Nginx => nginx::convert(file, text, surroundings),
        Dialect::Caddy => caddy::convert(file, text, surroundings),
    }
}
