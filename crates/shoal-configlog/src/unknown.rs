//! The first entry of the log that this version does not know, applied or not, kept where everybody can look.

use std::sync::{Arc, Mutex};

use openraft::EntryPayload;
use shoal_policy::recovery::{LogPlace, UnknownEntry};

use crate::levels::known_level;
use crate::mutex::lock;
use crate::types::{Entry, LogId};

/// What of a log begins with it; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Unknown(Arc<Mutex<Option<UnknownEntry>>>);

impl Unknown {
    /// They are in the log now, at its end.
    pub fn note(&self, entries: &[Entry]) {
        let Some(unknown) = entries.iter().find_map(of_entry) else { return };
        lock(&self.0).get_or_insert(unknown);
    }

    /// What comes after `after` (`None`: everything) is in the log no more.
    pub fn truncate(&self, after: Option<LogId>) {
        lock(&self.0).take_if(|unknown| Some(unknown.place.index) > after.map(|id| id.index));
    }

    /// It, if there is one.
    pub fn first(&self) -> Option<UnknownEntry> {
        lock(&self.0).clone()
    }
}

/// Where an entry is.
pub fn place_of(id: LogId) -> LogPlace {
    LogPlace { term: id.leader_id.term, index: id.index }
}

fn of_entry(entry: &Entry) -> Option<UnknownEntry> {
    let EntryPayload::Normal(command) = &entry.payload else { return None };
    let why = command.check_known(known_level()).err()?;
    Some(UnknownEntry { place: place_of(entry.log_id), why: why.to_string() })
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;
    use shoal_model::state::{COMMANDS, Command};

    use super::*;

    #[test]
    fn the_first_one_is_kept_until_it_is_taken_away() {
        let id =
            |index| LogId::new(openraft::impls::leader_id_adv::LeaderId::new(3, 1).to_committed(), index);
        let entry = |index, needs| {
            let command = Command::ForgetPurges { up_to: 1 }.sealed(needs);
            Entry { log_id: id(index), payload: EntryPayload::Normal(command) }
        };
        let unknown = Unknown::default();
        let check = |expected: Option<&str>| {
            let first = unknown.first().map(|unknown| unknown.place.to_string());
            assert_eq!(first.as_deref(), expected);
        };
        unknown.note(&[entry(7, COMMANDS)]);
        check(None);
        unknown.note(&[entry(8, COMMANDS), entry(9, COMMANDS + 1), entry(10, COMMANDS + 1)]);
        unknown.note(&[entry(11, COMMANDS + 1)]);
        check(Some("3.9"));
        unknown.truncate(Some(id(9)));
        check(Some("3.9"));
        unknown.truncate(Some(id(8)));
        check(None);
        unknown.note(&[entry(9, COMMANDS + 2)]);
        check(Some("3.9"));
        unknown.truncate(None);
        check(None);
    }
}
