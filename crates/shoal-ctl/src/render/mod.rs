//! Answers as text for people: pure functions, tested against the files in `testdata/`.

mod audit;
mod cache;
mod changes;
mod contexts;
mod describe;
mod health;
mod history;
mod keys;
mod lead;
mod names;
mod node;
mod purges;
mod quantile;
mod recovery;
mod rollout;
mod staleness;
mod standing;
mod status;
mod stored;
mod table;
mod tokens;
mod top;
mod units;
mod upgrade;
mod watch;
mod wrap;

pub use audit::audit;
pub use cache::{cache_stats, locations, purged};
pub use changes::{applied, confirmed, difference, plan};
pub use contexts::contexts;
pub use describe::described;
pub use health::health;
pub use history::history;
pub use keys::keys;
pub use lead::transferred;
pub use node::{removed, vote};
pub use purges::purge_status;
pub use recovery::recovery_plan;
pub use rollout::{rollout, rollout_line, rollout_policy};
pub use staleness::possibly_old;
pub use standing::{progress, standing};
pub use status::{nodes, status};
pub use stored::{Warmed, hottest, not_warmed, stored, warmed};
pub use tokens::{operators, tokens};
pub use top::{Rates, top};
pub use units::moment;
pub use units::span;
pub use upgrade::upgrade;
pub use watch::revision;
pub use wrap::wrapped;

/// Compares with `testdata/<name>.txt`, or writes it when `UPDATE_EXPECT=1`.
#[cfg(test)]
fn check_golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs; UPDATE_EXPECT=1 rewrites it", path.display());
}
