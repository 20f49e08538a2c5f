//! Whether this node should be sent requests: a pure function of what is known, and its text.

use std::fmt::Write;
use std::time::Duration;

/// A node that hears nobody is ready all the same after this time: it serves, and it may be the only one left. Long
/// enough to hear what the others say of endpoints before the first request comes.
const LONELY_AFTER: Duration = Duration::from_secs(2);

/// What readiness is judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Every listener of the active revision is bound.
    pub listeners_bound: bool,
    /// The revision that is served.
    pub revision: u64,
    /// Why the node is out of service, or on its way out; `None` = it is not.
    pub drain: Option<&'static str>,
    /// Members heard now, this node included, and members known.
    pub members: (usize, usize),
    /// Since the process started.
    pub uptime: Duration,
    /// A leader with a majority is known. Never part of plain readiness: traffic does not need it.
    pub quorum: bool,
    /// For how long the site may have changed without this node knowing.
    pub staleness: Duration,
    /// The caller's `?max_staleness=`.
    pub max_staleness: Option<Duration>,
    /// Why the newest revision is not served.
    pub refused: Option<String>,
    /// Why the log takes no part in decisions. Not part of readiness: what was served last is served on.
    pub log_broken: Option<String>,
    /// What somebody has to mend on this machine. Not part of readiness.
    pub problems: Vec<String>,
}

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 503.
    pub status: u16,
    /// `ready`, or one line per condition.
    pub text: String,
}

impl Answer {
    /// The node should be sent requests.
    pub const fn is_ready(&self) -> bool {
        self.status == 200
    }
}

/// Judges `facts`; `verbose` lists every condition.
pub fn judge(facts: &Facts, verbose: bool) -> Answer {
    let joined = facts.members.1 <= 1 || facts.members.0 > 1 || facts.uptime > LONELY_AFTER;
    let fresh = facts.max_staleness.is_none_or(|max| facts.staleness <= max);
    let listeners = match facts.listeners_bound {
        true if facts.drain.is_some() => {
            format!("those of revision {}, as far as they are not closed yet", facts.revision)
        }
        true => format!("bound for revision {}", facts.revision),
        false => "not all open yet; at a start the node looks for its cluster first".to_owned(),
    };
    let conditions = [
        ("listeners", facts.listeners_bound, listeners),
        ("accepting", facts.drain.is_none(), facts.drain.unwrap_or("not draining").to_owned()),
        ("gossip", joined, format!("{} of {} members heard", facts.members.0, facts.members.1)),
        ("staleness", fresh, format!("{} s", facts.staleness.as_secs())),
    ];
    let ready = conditions.iter().all(|(_, good, _)| *good);
    let mut text = String::new();
    if verbose {
        for (name, good, detail) in &conditions {
            let mark = if *good { '+' } else { '-' };
            _ = writeln!(text, "[{mark}] {name}: {detail}");
        }
        let quorum = match facts.quorum {
            true => "[+] quorum: yes".to_owned(),
            false => "[!] quorum: none; serving the last known site, changes are refused".to_owned(),
        };
        _ = writeln!(text, "{quorum}");
        if let Some(broken) = &facts.log_broken {
            _ = writeln!(text, "[!] log: {broken}");
        }
        for problem in &facts.problems {
            _ = writeln!(text, "[!] {problem}");
        }
        if let Some(refused) = &facts.refused {
            _ = writeln!(text, "[!] revision refused: {refused}");
        }
    }
    let word = match (ready, facts.drain) {
        (true, _) if facts.log_broken.is_some() => "ready, but the log cannot be used",
        (true, _) if facts.quorum => "ready",
        (true, _) => "ready, no quorum",
        (false, Some(why)) => why,
        (false, None) => "not ready",
    };
    _ = writeln!(text, "{word}");
    Answer { status: if ready { 200 } else { 503 }, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            listeners_bound: true,
            revision: 7,
            drain: None,
            members: (3, 3),
            uptime: Duration::from_secs(1),
            quorum: true,
            staleness: Duration::ZERO,
            max_staleness: None,
            refused: None,
            log_broken: None,
            problems: Vec::new(),
        }
    }

    #[test]
    fn readiness_follows_traffic_not_quorum() {
        let seconds = Duration::from_secs;
        for (facts, status, word) in [
            (facts(), 200, "ready\n"),
            (Facts { quorum: false, ..facts() }, 200, "ready, no quorum\n"),
            (
                Facts { log_broken: Some("bad page".to_owned()), quorum: false, ..facts() },
                200,
                "ready, but the log cannot be used\n",
            ),
            (
                Facts { drain: Some("draining: connections end"), ..facts() },
                503,
                "draining: connections end\n",
            ),
            (Facts { listeners_bound: false, ..facts() }, 503, "not ready\n"),
            (Facts { members: (1, 3), ..facts() }, 503, "not ready\n"),
            (
                Facts { members: (1, 3), uptime: seconds(4), quorum: false, ..facts() },
                200,
                "ready, no quorum\n",
            ),
            (Facts { staleness: seconds(9), max_staleness: Some(seconds(5)), ..facts() }, 503, "not ready\n"),
        ] {
            let answer = judge(&facts, false);
            assert_eq!((answer.status, answer.text.as_str()), (status, word), "{facts:?}");
        }
        let broken = Facts { log_broken: Some("bad page".to_owned()), ..facts() };
        assert!(judge(&broken, true).text.contains("[!] log: bad page\n"));
        let unwritable = judge(&Facts { problems: vec!["the access log".to_owned()], ..facts() }, true);
        assert_eq!(unwritable.status, 200);
        assert!(unwritable.text.contains("[!] the access log\n"), "{}", unwritable.text);
        assert!(judge(&Facts { quorum: false, ..facts() }, true).text.contains("[!] quorum: none"));
    }
}
