//! What has become of questions over DNS.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shoal_policy::dns::{Outcome, Reply};

/// Counted since the process began.
#[derive(Debug, Default)]
pub struct DnsFigures {
    pub(super) datagrams: AtomicU64,
    pub(super) questions_on_connections: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    truncated: AtomicU64,
    pub(super) limited_truncated: AtomicU64,
    pub(super) limited_dropped: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) restarts: AtomicU64,
}

impl DnsFigures {
    pub(super) fn count(&self, reply: &Reply) {
        self.outcomes[reply.outcome as usize].fetch_add(1, Relaxed);
        self.truncated.fetch_add(u64::from(reply.truncated), Relaxed);
    }

    /// `candidates`: nodes with public addresses, and those of them that are ready.
    pub fn render(&self, text: &mut String, candidates: (usize, usize)) {
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, u64)]| {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in lines {
                _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
        let plain = |value: u64| vec![(String::new(), value)];
        let questions = [("udp", &self.datagrams), ("tcp", &self.questions_on_connections)];
        let questions = questions.map(|(carrier, count)| (label("protocol", carrier), count.load(Relaxed)));
        family("shoal_dns_queries_total", "counter", "Questions over DNS.", &questions);
        let outcomes =
            Outcome::ALL.map(|one| (label("outcome", one.name()), self.outcomes[one as usize].load(Relaxed)));
        family("shoal_dns_responses_total", "counter", "Answers over DNS, by what they say.", &outcomes);
        let help = "Answers that did not fit into a datagram and say so.";
        family("shoal_dns_truncated_total", "counter", help, &plain(self.truncated.load(Relaxed)));
        let limited = [
            (label("action", "truncated"), self.limited_truncated.load(Relaxed)),
            (label("action", "dropped"), self.limited_dropped.load(Relaxed)),
        ];
        let help = "Datagrams of networks that have asked for more answers than --dns-rate.";
        family("shoal_dns_rate_limited_total", "counter", help, &limited);
        let help = "What came and was no question; it is not answered.";
        family("shoal_dns_ignored_total", "counter", help, &plain(self.ignored.load(Relaxed)));
        let help = "Connections of those who ask over TCP.";
        family("shoal_dns_connections", "gauge", help, &plain(self.connections.load(Relaxed)));
        let help = "Connections that were closed at once, since there were too many.";
        let refused = plain(self.connections_refused.load(Relaxed));
        family("shoal_dns_connections_refused_total", "counter", help, &refused);
        let (all, ready) = candidates;
        let nodes =
            [(label("state", "ready"), ready as u64), (label("state", "left_out"), (all - ready) as u64)];
        let help =
            "Nodes with --public-address, by whether they are answered; with none ready all of them are.";
        family("shoal_dns_nodes", "gauge", help, &nodes);
        let help = "How often answering has died and begun anew.";
        family("shoal_dns_restarts_total", "counter", help, &plain(self.restarts.load(Relaxed)));
    }
}
