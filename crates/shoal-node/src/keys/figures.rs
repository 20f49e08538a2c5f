//! What a monitoring system is told of this node's own certificate.

use std::fmt::Write as _;

use super::life_of;
use crate::node::{Node, now_ms};

impl Node {
    /// Writes the figures.
    pub(crate) fn render_own_certificate(&self, text: &mut String) {
        let life = life_of(&self.peers.credentials().identity());
        let (ends, left) = life.map_or((0, 0), |life| (life.to_ms / 1000, life.left(now_ms()).as_secs()));
        let name = "shoal_node_cert_not_after_seconds";
        let help = "Unix seconds at which this node's own certificate expires.";
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {ends}");
        let name = "shoal_node_cert_left_seconds";
        let help = "Seconds that are left of it.";
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {left}");
        let (renewed, failed) = self.own_certificate.with(|state| (state.renewed, state.failed));
        let name = "shoal_node_cert_renewals_total";
        let help = "Tries to have it renewed.";
        _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} counter\n{name}{{outcome=\"ok\"}} {renewed}\n{name}{{outcome=\"failed\"}} {failed}"
        );
    }
}
