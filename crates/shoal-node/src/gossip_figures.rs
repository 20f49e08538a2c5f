//! What the gossip has received and dropped, as a monitoring system reads it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use shoal_cluster::gossip::GossipCounters;

/// Writes the figures.
pub fn render(counters: &GossipCounters, text: &mut String) {
    let name = "shoal_gossip_received_total";
    let help = "Gossip messages received and believed.";
    let received = counters.received.load(Ordering::Relaxed);
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {received}");
    let name = "shoal_gossip_dropped_total";
    let help = "Gossip that was not believed: not of this cluster or not for this node, of a clock too far off, seen \
                before, of a node that was removed, or unreadable.";
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (reason, counter) in [
        ("unauthentic", &counters.unauthentic),
        ("skewed", &counters.skewed),
        ("replayed", &counters.replayed),
        ("removed", &counters.removed),
        ("malformed", &counters.malformed),
    ] {
        let dropped = counter.load(Ordering::Relaxed);
        _ = writeln!(text, "{name}{{reason=\"{reason}\"}} {dropped}");
    }
}
