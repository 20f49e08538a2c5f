//! Whether this node should be sent requests: a pure function of what is known, and its text.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use shoal_policy::readiness::{Look, Scope, Status};

use crate::ready_scopes::Standing;

/// What readiness is judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What every look finds.
    pub look: Look,
    /// The revision that is served.
    pub revision: u64,
    /// Why the node is out of service, or on its way out; `None` = it is not.
    pub drain: Option<&'static str>,
    /// A leader with a majority is known. Never part of plain readiness: traffic does not need it.
    pub quorum: bool,
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
    /// `ready` or why not, and before it one line per condition if they are asked for.
    pub text: String,
}

impl Answer {
    /// The node should be sent requests.
    pub const fn is_ready(&self) -> bool {
        self.status == 200
    }
}

impl Facts {
    fn is_fresh(&self) -> bool {
        self.max_staleness.is_none_or(|max| self.look.staleness <= max)
    }
}

/// Judges `facts`; `verbose` lists every condition.
pub fn judge(facts: &Facts, verbose: bool) -> Answer {
    let Look { serves, members, staleness, .. } = facts.look;
    let listeners = match serves {
        true if facts.drain.is_some() => {
            format!("those of revision {}, as far as they are not closed yet", facts.revision)
        }
        true => format!("bound for revision {}", facts.revision),
        false => "not all open yet; at a start the node looks for its cluster first".to_owned(),
    };
    let conditions = [
        ("listeners", serves, listeners),
        ("accepting", facts.drain.is_none(), facts.drain.unwrap_or("not draining").to_owned()),
        ("gossip", facts.look.has_joined(), format!("{} of {} members heard", members.0, members.1)),
        ("staleness", facts.is_fresh(), format!("{} s", staleness.as_secs())),
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
        (true, _) if facts.log_broken.is_some() => "ready, but the log cannot be used".to_owned(),
        (true, _) if facts.quorum => "ready".to_owned(),
        (true, _) => "ready, no quorum".to_owned(),
        (false, Some(why)) => why.to_owned(),
        (false, None) if serves && !facts.is_fresh() => format!("stale: {} s", staleness.as_secs()),
        (false, None) => format!("not ready: {}", reason(facts, None)),
    };
    _ = writeln!(text, "{word}");
    Answer { status: if ready { 200 } else { 503 }, text }
}

/// The scope that is asked about, and how the node stands in it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which.
    pub scope: Scope,
    /// How it stands.
    pub standing: Standing,
    /// The caller's `?min_ready_s=`.
    pub min_ready: Duration,
}

/// The answer of `/readyz` for programs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Told {
    /// Requests should be sent here.
    pub ready: bool,
    /// `ready`, `alive`, `draining`, `stale` or `isolated`.
    pub status: &'static str,
    /// Why.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    /// Seconds for which it has been ready in this scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_for_s: Option<u64>,
    /// It is ready in this scope only because most of its region would not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<bool>,
    revision: u64,
    members_heard: usize,
    members: usize,
    quorum: bool,
    staleness_s: u64,
}

/// Judges `facts` for programs: in the scope that is asked about, or without one as the plain answer does.
pub fn tell(facts: &Facts, asked: Option<&Asked>) -> Told {
    let is_fresh = facts.is_fresh();
    let ready = is_fresh
        && match asked {
            None => judge(facts, false).is_ready(),
            Some(asked) => asked.standing.sent_for.is_some_and(|time| time >= asked.min_ready),
        };
    let status = match facts.look.status() {
        Status::Ready if !is_fresh => Status::Stale,
        status => status,
    };
    Told {
        ready,
        status: status.name(),
        reason: reason(facts, asked),
        scope: asked.map(|asked| asked.scope.name()),
        ready_for_s: asked.and_then(|asked| asked.standing.sent_for).map(|time| time.as_secs()),
        held: asked.map(|asked| asked.standing.is_held()),
        revision: facts.revision,
        members_heard: facts.look.members.0,
        members: facts.look.members.1,
        quorum: facts.quorum,
        staleness_s: facts.look.staleness.as_secs(),
    }
}

/// The first thing that stands in the way, or else the first that is noteworthy.
fn reason(facts: &Facts, asked: Option<&Asked>) -> String {
    let Look { serves, members, staleness, expired, .. } = facts.look;
    if let Some(why) = facts.drain {
        return why.to_owned();
    }
    if !serves {
        return "not all listeners are open yet".to_owned();
    }
    if let Some(max) = facts.max_staleness.filter(|max| staleness > *max) {
        return format!(
            "the site may have changed for {} s, more than {} s",
            staleness.as_secs(),
            max.as_secs()
        );
    }
    if let Some(Asked { standing, .. }) = asked.filter(|asked| asked.standing.is_held()) {
        let (unready, all) = standing.region;
        return format!("{unready} of {all} nodes of the region would not be ready: it stays so");
    }
    if !facts.look.has_joined() {
        return format!("none of the other {} members is heard yet", members.1.saturating_sub(1));
    }
    if expired && asked.is_some() {
        return "by this node's clock every certificate of the site has expired".to_owned();
    }
    match asked.map(|asked| (asked.standing, asked.min_ready)) {
        Some((Standing { sent_for: None, looks, .. }, _)) => {
            return format!("{} of {} good looks in a row", looks.0, looks.1);
        }
        Some((Standing { sent_for: Some(time), .. }, min_ready)) if time < min_ready => {
            return format!("ready for {} of {} s", time.as_secs(), min_ready.as_secs());
        }
        Some(_) | None => {}
    }
    match facts.look.status() {
        Status::Isolated => format!("none of the other {} members is heard", members.1.saturating_sub(1)),
        Status::Stale => format!("the site may have changed for {} s", staleness.as_secs()),
        Status::Ready | Status::Alive | Status::Draining => "nothing is amiss".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use shoal_policy::readiness::Ready;

    use super::*;

    const GOOD: Look = Look {
        serves: true,
        activates_first: false,
        drains: false,
        members: (3, 3),
        uptime: Duration::from_secs(1),
        staleness: Duration::ZERO,
        expired: false,
    };

    fn facts() -> Facts {
        Facts {
            look: GOOD,
            revision: 7,
            drain: None,
            quorum: true,
            max_staleness: None,
            refused: None,
            log_broken: None,
            problems: Vec::new(),
        }
    }

    fn drained(why: &'static str) -> Facts {
        Facts { drain: Some(why), look: Look { drains: true, ..GOOD }, ..facts() }
    }

    #[test]
    fn readiness_follows_traffic_not_quorum() {
        let seconds = Duration::from_secs;
        let alone = Look { members: (1, 3), ..GOOD };
        for (facts, status, word) in [
            (facts(), 200, "ready\n"),
            (Facts { quorum: false, ..facts() }, 200, "ready, no quorum\n"),
            (
                Facts { log_broken: Some("bad page".to_owned()), quorum: false, ..facts() },
                200,
                "ready, but the log cannot be used\n",
            ),
            (drained("draining: connections end"), 503, "draining: connections end\n"),
            (
                Facts { look: Look { serves: false, ..GOOD }, ..facts() },
                503,
                "not ready: not all listeners are open yet\n",
            ),
            (Facts { look: alone, ..facts() }, 503, "not ready: none of the other 2 members is heard yet\n"),
            (
                Facts { look: Look { uptime: seconds(4), ..alone }, quorum: false, ..facts() },
                200,
                "ready, no quorum\n",
            ),
            (
                Facts {
                    look: Look { staleness: seconds(9), ..GOOD },
                    max_staleness: Some(seconds(5)),
                    ..facts()
                },
                503,
                "stale: 9 s\n",
            ),
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

    #[test]
    fn programs_are_told_why() {
        let seconds = Duration::from_secs;
        let standing = |ready: Ready, sent_for: Option<u64>| Standing {
            ready,
            sent_for: sent_for.map(seconds),
            looks: (1, 3),
            region: (2, 3),
            changes: 1,
        };
        let sure = standing(Ready::Yes, Some(10));
        let check = |facts: &Facts, standing: Standing, min_ready_s: u64, expected: (bool, &str, &str)| {
            let asked = Asked { scope: Scope::Bgp, standing, min_ready: seconds(min_ready_s) };
            let told = tell(facts, Some(&asked));
            assert_eq!((told.ready, told.status, &*told.reason), expected, "{facts:?} {standing:?}");
        };
        let stale = Facts { look: Look { staleness: seconds(9), ..GOOD }, quorum: false, ..facts() };
        let alone =
            Facts { look: Look { members: (1, 3), uptime: seconds(9), ..stale.look }, ..stale.clone() };
        let expired = Facts { look: Look { expired: true, ..GOOD }, ..facts() };
        check(&facts(), sure, 0, (true, "ready", "nothing is amiss"));
        check(&facts(), sure, 30, (false, "ready", "ready for 10 of 30 s"));
        check(&facts(), standing(Ready::No, None), 0, (false, "ready", "1 of 3 good looks in a row"));
        check(&stale, sure, 0, (true, "stale", "the site may have changed for 9 s"));
        let strict = Facts { max_staleness: Some(seconds(5)), ..stale.clone() };
        check(&strict, sure, 0, (false, "stale", "the site may have changed for 9 s, more than 5 s"));
        check(&alone, sure, 0, (true, "isolated", "none of the other 2 members is heard"));
        let gone = standing(Ready::No, None);
        check(
            &drained("draining: connections end"),
            gone,
            0,
            (false, "draining", "draining: connections end"),
        );
        let dark = Facts { look: Look { serves: false, ..GOOD }, ..facts() };
        check(&dark, gone, 0, (false, "alive", "not all listeners are open yet"));
        let held = standing(Ready::Held, Some(10));
        let reason = "2 of 3 nodes of the region would not be ready: it stays so";
        check(&expired, held, 0, (true, "alive", reason));
        let reason = "by this node's clock every certificate of the site has expired";
        check(&expired, gone, 0, (false, "alive", reason));
        let plain = serde_json::to_string(&tell(&facts(), None)).unwrap();
        assert_eq!(
            plain,
            r#"{"ready":true,"status":"ready","reason":"nothing is amiss","revision":7,"members_heard":3,"members":3,"quorum":true,"staleness_s":0}"#
        );
    }
}
