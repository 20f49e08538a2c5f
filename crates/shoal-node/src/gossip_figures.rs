//! What the gossip has received and dropped, how much it is and how fast, as a monitoring system reads it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use shoal_cluster::gossip::Gossip;

/// Writes the figures.
pub fn render(gossip: &Gossip, text: &mut String) {
    let counters = gossip.counters();
    let name = "shoal_gossip_state_bytes";
    let help =
        "Bytes of what this node gossips of itself; those of all nodes together are what each of them holds.";
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}", gossip.own_bytes());
    let name = "shoal_gossip_convergence_seconds";
    let help = "Age of the newest sign of life of the quietest live member: what it says is known here about as late.";
    let silence_ms = counters.silence_ms.load(Ordering::Relaxed);
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}", silence_ms as f64 / 1e3);
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
