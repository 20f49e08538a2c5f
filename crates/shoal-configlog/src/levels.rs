//! Which commands this process knows, and which level of the cluster each of them takes.

use shoal_cluster::identity::not_after;
use shoal_model::state::{COMMANDS, Command, KeyOrder, LEVELS, OLDEST_LEVEL, SuccessionStep};

/// A node of a build with debug assertions that is started with this in its environment pretends to be of a release to come,
/// as many of them ahead as it says: tests of an upgrade need two versions, and there is one. It knows as many more commands,
/// the first of which is another form of [`Command::CreateToken`]; two ahead, it works with none but the release before it.
#[cfg(debug_assertions)]
const RELEASES_AHEAD: &str = "SHOAL_PRETEND_RELEASES_AHEAD";

/// The highest level this process can be a node of.
pub fn known_level() -> u32 {
    COMMANDS + releases_ahead()
}

/// The lowest one.
pub fn oldest_level() -> u32 {
    match releases_ahead() {
        0 | 1 => OLDEST_LEVEL,
        ahead => COMMANDS + ahead - 1,
    }
}

#[cfg(debug_assertions)]
fn releases_ahead() -> u32 {
    use std::sync::LazyLock;
    static AHEAD: LazyLock<u32> = LazyLock::new(|| {
        let set = std::env::var(RELEASES_AHEAD).ok().and_then(|text| text.parse().ok());
        let ahead: u32 = set.unwrap_or(0).min(9);
        if ahead > 0 {
            tracing::error!(ahead, "{RELEASES_AHEAD} is set: this node pretends to be of a release to come");
        }
        ahead
    });
    *AHEAD
}

#[cfg(not(debug_assertions))]
const fn releases_ahead() -> u32 {
    0
}

/// The level that has to be agreed upon before `command` may be written. What was known before there were levels asks those
/// who propose it to look for themselves.
pub(crate) fn takes_level(command: &Command) -> Option<u32> {
    let needs = match command {
        Command::AskedBy { command, .. } => return takes_level(command),
        Command::CreateToken { .. } if releases_ahead() > 0 => COMMANDS + 1,
        // It is what raises the level.
        Command::SetLevel { .. } => return None,
        command => command.needs(),
    };
    (needs > LEVELS).then_some(needs)
}

/// Refuses what another node must not have this one write: once it is in the log, whoever does not know it takes no part any
/// more; and what this one would not propose itself. Envelopes are made by whoever leads.
pub(crate) fn check_passed_on(command: &Command) -> Result<(), String> {
    if !command.may_be_passed_on() {
        return Err("nobody proposes that to another node".to_owned());
    }
    match command.innermost() {
        Command::SetLevel { to, .. } if *to > known_level() => Err("nobody here knows that level".to_owned()),
        Command::Later(_) => Err("what is in the envelope is not known here".to_owned()),
        Command::Publish { site, .. } if !site.may_be_read() => {
            Err("nobody here can read that site".to_owned())
        }
        Command::KeepKeys(KeyOrder::Authority(SuccessionStep::Begin { certificate, bridge, .. }))
            if [certificate, bridge].into_iter().any(|der| not_after(der).is_none()) =>
        {
            Err("that is no certificate of an authority".to_owned())
        }
        command => command.check_content().map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::state::{Asker, SiteText, Terms};

    use super::*;

    #[test]
    fn a_site_that_nobody_can_read_is_not_passed_on() {
        let uploaded = || SiteText::Uploaded { upload: "u".into(), parts: 1 };
        let inline = |text: &str| SiteText::Inline(text.into());
        let readable = r#"{"upstreams":{"u":{"endpoints":["h:1"]}}}"#;
        for (site, expected) in [
            (inline("{}"), true),
            (inline(readable), true),
            (inline("not json"), false),
            (inline(""), false),
            (inline("7"), false),
            (inline(r#"{"unheard-of":{}}"#), false),
            // What it says is not known before all of its parts are there.
            (uploaded(), true),
        ] {
            let command = Command::Publish {
                request_id: String::new(),
                expected: None,
                site: site.clone(),
                author: String::new(),
                message: String::new(),
                at_ms: 1,
                counts: [0; 3],
                terms: Terms::default(),
            };
            assert_eq!(check_passed_on(&command).is_ok(), expected, "{site:?}");
            let asked = command.asked_by(vec![Asker::default()]);
            assert_eq!(check_passed_on(&asked).is_ok(), expected, "{site:?}");
        }
    }
}
