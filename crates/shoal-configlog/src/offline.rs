//! The log of a node that does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload, Membership};
use redb::Database;
use serde::Serialize;
use shoal_model::NodeId;
use shoal_model::state::{Command, ConfigState, UnknownCommand};
use shoal_policy::recovery::{Cut, LogEnd, LogPlace, NoCut, UnknownEntry, cut};

use crate::levels::known_level;
use crate::log::{OpenError, SNAPSHOTS, STORE};
use crate::machine::{SnapshotDir, StateDocument, Unreadable};
use crate::network::next_of;
use crate::room::Room;
use crate::store;
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, Vote};
use crate::unknown::place_of;

pub use crate::store::Stamp as Whose;

/// The place of an entry.
fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(openraft::impls::leader_id_adv::LeaderId::new(term, node).to_committed(), index)
}

/// Writes the log of a new cluster into `dir`, which has none: its only voter is `whose` node, reached at `address`, and its
/// state after the entry at `index`, before which there is nothing, is `state`. It is on the disk for good then.
pub fn found_with(
    dir: &Path,
    whose: Whose,
    address: &str,
    (index, state): (u64, &ConfigState),
) -> Result<(), OpenError> {
    let failed = |reason: String| OpenError::Bootstrap { reason };
    let node = whose.node_id.0;
    let id = log_id(1, node, index);
    let nodes = BTreeMap::from([(node, BasicNode::new(address))]);
    let membership = Membership::new(vec![BTreeSet::from([node])], nodes);
    let membership = StoredMembership::new(Some(id), membership.map_err(|error| failed(error.to_string()))?);
    let meta = SnapshotMeta { last_log_id: Some(id), last_membership: membership };
    let unusable = |source| OpenError::Directory { dir: dir.display().to_string(), source };
    let document = StateDocument::of(state).map_err(unusable)?;
    let snapshots = SnapshotDir::open(dir.join(SNAPSHOTS), Room::default()).map_err(unusable)?;
    snapshots.save(&meta, &document).map_err(unusable)?;
    store::write_beginning(&dir.join(STORE), whose, &Vote::new(1, node), id)?;
    Ok(())
}

/// The log of a node that has run, with everything in it applied that this version knows, whether it is known to be committed or
/// not: what others have acknowledged may be among it.
pub struct StoppedLog {
    database: Database,
    whose: Whose,
    end: LogEnd,
    state: ConfigState,
    /// The newest entry that is applied.
    applied: LogPlace,
    /// What follows it.
    rest: LeftOut,
}

/// Entries that this version cannot apply, or could only on top of such ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The first of them.
    pub from: LogPlace,
    /// How many of which kind.
    pub kinds: BTreeMap<String, u64>,
}

impl LeftOut {
    /// How many there are.
    pub fn entries(&self) -> u64 {
        self.kinds.values().sum()
    }
}

/// As `3 entries from 3.120 on (1 publish, 2 create token)`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let word = if self.entries() == 1 { "entry" } else { "entries" };
        write!(f, "{} {word} from {} on ({})", self.entries(), self.from, kinds.join(", "))
    }
}

impl StoppedLog {
    /// Opens the log of `whose` node in `dir`, which no process may use. Blocks.
    pub fn open(dir: &Path, whose: Whose) -> Result<Self, OpenError> {
        let damaged = |reason: String| OpenError::Restore { dir: dir.display().to_string(), reason };
        let of_version = |why: &UnknownCommand| OpenError::Version { reason: why.to_string() };
        let snapshot = SnapshotDir::untouched(dir.join(SNAPSHOTS)).load();
        let snapshot = snapshot.map_err(|error| damaged(error.to_string()))?;
        let (mut state, mut last, mut membership) = match snapshot {
            Some(snapshot) => {
                let state = snapshot.snapshot.read().map_err(|error| match error {
                    Unreadable::Unknown(why) => of_version(&why),
                    Unreadable::Malformed(error) => damaged(error.to_string()),
                })?;
                (state, snapshot.meta.last_log_id, snapshot.meta.last_membership)
            }
            None => (ConfigState::default(), None, StoredMembership::default()),
        };
        let (database, records) = store::open_stopped(&dir.join(STORE), whose)?;
        let mut applied = last.map(place_of).unwrap_or_default();
        let (mut unknown, mut rest) = (None, LeftOut::default());
        loop {
            let next = last.map_or(Some(0), |id: LogId| next_of(id.index));
            let next = next.ok_or_else(|| damaged("nothing can follow its last entry".to_owned()))?;
            let entries = store::read_batch(&database, next).map_err(|error| damaged(error.to_string()))?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let (id, follows) = (entry.log_id, last.map_or(0, |id| id.index.saturating_add(1)));
                if id.index != follows {
                    return Err(damaged(format!("entry {} follows where {follows} should", id.index)));
                }
                let (place, kind) = (place_of(id), kind_of(&entry));
                match entry.payload {
                    EntryPayload::Normal(command) if unknown.is_none() => {
                        // As it is applied while the node runs: what may be ignored is left out.
                        match command.opened(known_level()) {
                            Ok(Some(command)) => _ = state.apply(id.index, command),
                            Ok(None) => {}
                            Err(why) => {
                                unknown = Some(UnknownEntry { place, why: why.to_string() });
                                rest.from = place;
                            }
                        }
                    }
                    EntryPayload::Blank | EntryPayload::Normal(_) => {}
                    // Who votes is who was to vote last, agreed upon or not.
                    EntryPayload::Membership(changed) => {
                        membership = StoredMembership::new(Some(id), changed);
                    }
                }
                match unknown {
                    None => applied = place,
                    Some(_) => *rest.kinds.entry(kind).or_default() += 1,
                }
                last = Some(id);
            }
        }
        let end = LogEnd {
            last: last.map(place_of).unwrap_or_default(),
            vote_term: records.vote.map_or(0, |vote| vote.leader_id.term),
            vote_for: NodeId(records.vote.map_or(0, |vote| vote.leader_id.node_id)),
            committed: records.committed.map_or(0, |id| id.index),
            voters: membership.membership().voter_ids().map(NodeId).collect(),
            learners: membership.membership().learner_ids().map(NodeId).collect(),
            epoch: state.cluster_epoch,
            revision: state.revisions.active().0.0,
            unknown,
        };
        Ok(Self { database, whose, end, state, applied, rest })
    }

    /// The same without the entry at `from`, the first that this version does not know, and what follows it. On the disk they are
    /// until something else is written in their place.
    pub fn without(self, from: LogPlace) -> Result<(Self, LeftOut, Cut), NoCut> {
        let found = cut(&self.end, from)?;
        let Self { end, applied, rest, .. } = self;
        let end = LogEnd {
            last: applied,
            // Whoever has voted for what is left out has heard of its term.
            vote_term: end.vote_term.max(end.last.term),
            committed: end.committed.min(applied.index),
            unknown: None,
            ..end
        };
        Ok((Self { end, rest: LeftOut::default(), ..self }, rest, found))
    }

    /// How far it is.
    pub fn end(&self) -> &LogEnd {
        &self.end
    }

    /// What it adds up to, as far as this version knows it.
    pub fn state(&self) -> &ConfigState {
        &self.state
    }

    /// Makes its node, reached at `address`, the only voter, and has `command` follow: two entries more, in a term of their own.
    /// Everything in the log counts as committed from then on, so that this version has to know all of it. It is on the disk for
    /// good then, or nothing has changed.
    pub fn go_on_alone(self, address: &str, command: Command) -> Result<LogEnd, OpenError> {
        let Self { database, whose, end, .. } = self;
        let failed = |reason: String| OpenError::Bootstrap { reason };
        if let Some(unknown) = &end.unknown {
            return Err(OpenError::Version { reason: unknown.to_string() });
        }
        let node = whose.node_id.0;
        let last_term = end.vote_term.max(end.last.term);
        let (Some(term), Some(first)) = (next_of(last_term), next_of(end.last.index)) else {
            let place = LogPlace { term: last_term, index: end.last.index };
            return Err(failed(format!("nothing can follow {place}: that is counted to the end")));
        };
        let second = first + 1;
        let nodes = BTreeMap::from([(node, BasicNode::new(address))]);
        let membership = Membership::new(vec![BTreeSet::from([node])], nodes);
        let membership = membership.map_err(|error| failed(error.to_string()))?;
        let entries = [
            Entry { log_id: log_id(term, node, first), payload: EntryPayload::Membership(membership) },
            Entry { log_id: log_id(term, node, second), payload: EntryPayload::Normal(command) },
        ];
        store::write_end(&database, &entries, &Vote::new(term, node))
            .map_err(|error| failed(error.to_string()))?;
        Ok(LogEnd {
            last: LogPlace { term, index: second },
            vote_term: term,
            vote_for: whose.node_id,
            committed: second,
            voters: BTreeSet::from([whose.node_id]),
            learners: BTreeSet::new(),
            ..end
        })
    }
}

/// What an entry is for.
fn kind_of(entry: &Entry) -> String {
    match &entry.payload {
        EntryPayload::Blank => "blank".to_owned(),
        EntryPayload::Normal(command) => command.kind(),
        EntryPayload::Membership(_) => "membership".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openraft::RaftLogReader;
    use openraft::storage::{RaftLogStorage, RaftStateMachine};
    use shoal_model::state::{Asker, COMMANDS};
    use shoal_model::{ClusterId, NodeId};

    use super::*;
    use crate::machine::StateMachine;
    use crate::store::{LogStore, Past};

    const WHOSE: Whose = Whose { node_id: NodeId(1), cluster_id: ClusterId(7) };

    fn state() -> ConfigState {
        let mut state = ConfigState::default();
        state.cluster_id = ClusterId(7);
        state
    }

    #[tokio::test]
    async fn a_founded_log_is_one_that_was_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let state = state();
        found_with(dir.path(), WHOSE, "127.0.0.1:7400", (41, &state)).unwrap();
        let (mut store, _closed) = LogStore::open(&dir.path().join(STORE), WHOSE, Past::Kept).unwrap();
        let log = store.get_log_state().await.unwrap();
        assert_eq!(
            (log.last_purged_log_id, log.last_log_id),
            (Some(log_id(1, 1, 41)), Some(log_id(1, 1, 41)))
        );
        assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(1, 1)));
        let mut machine =
            StateMachine::open(dir.path().join(SNAPSHOTS), Room::default(), Arc::new(|_| {})).unwrap();
        let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.meta.last_membership.membership().voter_ids().collect::<Vec<_>>(), [1]);
        assert_eq!(snapshot.snapshot.read().unwrap(), state);
    }

    #[tokio::test]
    async fn who_goes_on_alone_keeps_all_that_is_in_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let state = state();
        found_with(dir.path(), WHOSE, "127.0.0.1:7400", (41, &state)).unwrap();
        let forget = |up_to| Command::ForgetPurges { up_to };
        // What a leader of a later term has left, of which it was never told that it is committed.
        let others = Membership::new(
            vec![BTreeSet::from([1, 2, 3])],
            BTreeMap::from([1, 2, 3].map(|id| (id, BasicNode::new("127.0.0.1:7400")))),
        );
        let entries = [
            Entry { log_id: log_id(3, 2, 42), payload: EntryPayload::Membership(others.unwrap()) },
            Entry { log_id: log_id(3, 2, 43), payload: EntryPayload::Normal(forget(40)) },
        ];
        let (database, _) = store::open_stopped(&dir.path().join(STORE), WHOSE).unwrap();
        store::write_at_once(&database, &entries, &[]).unwrap();
        drop(database);

        let log = StoppedLog::open(dir.path(), WHOSE).unwrap();
        let end = log.end();
        assert_eq!((end.last, end.committed), (LogPlace { term: 3, index: 43 }, 41));
        assert_eq!(end.voters, BTreeSet::from([1, 2, 3].map(NodeId)));
        assert_eq!(log.state().purges.floor, 40, "all of it is applied");
        let recover = Command::Recover { survivor: NodeId(1), cluster_epoch: 5 };
        let after = log.go_on_alone("127.0.0.1:7400", recover).unwrap();
        let again = StoppedLog::open(dir.path(), WHOSE).unwrap();
        assert_eq!((again.end().last, again.end().epoch), (LogPlace { term: 4, index: 45 }, 5));
        assert_eq!(again.end(), &LogEnd { epoch: 5, ..after });
        assert_eq!(again.end().voters, BTreeSet::from([NodeId(1)]));
    }

    #[tokio::test]
    async fn nobody_goes_on_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        found_with(dir.path(), WHOSE, "127.0.0.1:7400", (41, &state())).unwrap();
        let (database, _) = store::open_stopped(&dir.path().join(STORE), WHOSE).unwrap();
        let forget = EntryPayload::Normal(Command::ForgetPurges { up_to: 40 });
        let entry = Entry { log_id: log_id(3, 2, 42), payload: forget };
        store::write_end(&database, &[entry], &Vote::new(u64::MAX - 1, 2)).unwrap();
        drop(database);
        let log = StoppedLog::open(dir.path(), WHOSE).unwrap();
        let recover = Command::Recover { survivor: NodeId(1), cluster_epoch: 5 };
        let refused = log.go_on_alone("127.0.0.1:7400", recover).err().unwrap().to_string();
        assert!(refused.contains("nothing can follow 18446744073709551614.42"), "{refused}");
    }

    #[tokio::test]
    async fn what_a_later_version_wrote_is_left_out_with_all_that_follows() {
        let later = COMMANDS + 1;
        let forget = |up_to| Command::ForgetPurges { up_to };
        let normal =
            |index, command| Entry { log_id: log_id(3, 2, index), payload: EntryPayload::Normal(command) };
        let others = BTreeMap::from([1, 2].map(|id| (id, BasicNode::new("127.0.0.1:7400"))));
        let others = Membership::new(vec![BTreeSet::from([1, 2])], others).unwrap();
        let entries = [
            normal(42, forget(40)),
            normal(43, Command::SetLevel { from: 0, to: later }),
            normal(44, forget(41).sealed(later).asked_by(vec![Asker::default()])),
            Entry { log_id: log_id(3, 2, 45), payload: EntryPayload::Membership(others) },
            normal(46, forget(42)),
        ];
        let written = || {
            let dir = tempfile::tempdir().unwrap();
            found_with(dir.path(), WHOSE, "127.0.0.1:7400", (41, &state())).unwrap();
            let (database, _) = store::open_stopped(&dir.path().join(STORE), WHOSE).unwrap();
            store::write_at_once(&database, &entries, &[]).unwrap();
            dir
        };
        let place = |text: &str| text.parse::<LogPlace>().unwrap();

        let dir = written();
        let log = StoppedLog::open(dir.path(), WHOSE).unwrap();
        let unknown = log.end().unknown.clone().unwrap();
        assert_eq!((log.end().last, unknown.place), (place("3.46"), place("3.43")));
        assert_eq!((log.end().committed, log.state().purges.floor), (41, 40), "what follows is not applied");
        let recover = || Command::Recover { survivor: NodeId(1), cluster_epoch: 5 };
        let refused = log.go_on_alone("127.0.0.1:7400", recover());
        assert!(matches!(refused, Err(OpenError::Version { .. })), "{refused:?}");
        for elsewhere in ["3.42", "3.44", "2.43"] {
            let log = StoppedLog::open(dir.path(), WHOSE).unwrap();
            let asked = place(elsewhere);
            assert_eq!(log.without(asked).err(), Some(NoCut::Elsewhere { asked, unknown: unknown.clone() }));
        }

        let log = StoppedLog::open(dir.path(), WHOSE).unwrap();
        let (log, left_out, found) = log.without(unknown.place).unwrap();
        assert_eq!((log.end().last, found), (place("3.42"), Cut::Open));
        let told = "4 entries from 3.43 on (2 forget purges, 1 membership, 1 set level)";
        assert_eq!(left_out.to_string(), told);
        let after = log.go_on_alone("127.0.0.1:7400", recover()).unwrap();
        let again = StoppedLog::open(dir.path(), WHOSE).unwrap();
        assert_eq!(again.end(), &LogEnd { epoch: 5, ..after });
        assert_eq!((again.end().last, again.end().unknown.clone()), (place("4.44"), None));
        assert_eq!(again.without(place("3.43")).err(), Some(NoCut::KnowsAll { last: place("4.44") }));

        // What is not known to be committed a running node sees as well, before it has to apply it.
        let dir = written();
        let (store, _closed) = LogStore::open(&dir.path().join(STORE), WHOSE, Past::Kept).unwrap();
        assert_eq!(store.unknown().first(), Some(unknown));
    }
}
