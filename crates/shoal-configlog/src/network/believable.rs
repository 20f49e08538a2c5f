//! How far a message may say that terms and entries are counted: who is led to the last there is can never elect or write
//! anything again.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::client::SnapshotHead;
use crate::types::{LogId, TypeConfig, Vote};

/// So far anybody may be, whatever this node knows: it may have been away for as long as you like.
const ALWAYS: u64 = 1 << 62;
/// From there on this much ahead, at most: an election in each second of a century.
const AHEAD: u64 = 1 << 32;

/// How far terms and entries are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub term: u64,
    pub index: u64,
}

/// What a message says of that.
pub trait Said {
    /// Whose word it is; `None` = it answers, and takes the term of who asked for granted.
    fn vote(&self) -> Option<Vote>;
    /// The entries that it names.
    fn named(&self) -> impl Iterator<Item = LogId>;
}

impl Reach {
    /// That of a message.
    pub fn of(said: &impl Said) -> Self {
        let term = said.vote().map_or(0, |vote| vote.leader_id.term);
        Self { term, index: said.named().map(|id| id.index).max().unwrap_or(0) }
    }
}

/// Why a node that has come as far as `own` does not believe `said`, unless it does.
pub fn why_not(said: &impl Said, own: Reach) -> Option<String> {
    let term = said.vote().map_or(own.term, |vote| vote.leader_id.term);
    if is_beyond(own.term, term) {
        return Some(term_beyond(own.term, term));
    }
    said.named().find_map(|LogId { leader_id, index }| match leader_id.term > term {
        true => Some(format!("it names an entry of term {}, and is of term {term} itself", leader_id.term)),
        false => is_beyond(own.index, index)
            .then(|| format!("nobody comes to entry {index} where others are at {}", own.index)),
    })
}

/// The same of a term alone.
pub fn why_not_term(term: u64, own: u64) -> Option<String> {
    is_beyond(own, term).then(|| term_beyond(own, term))
}

fn term_beyond(own: u64, said: u64) -> String {
    format!("nobody comes to term {said} where others are at {own}")
}

/// Who counts from one to the next does not come to `said` where another one is at `own`. Who has only just begun to count knows
/// nothing of that: it goes where the others are, as long as there is somewhere to go from there. Who was away while the others
/// were led beyond has to join anew.
fn is_beyond(own: u64, said: u64) -> bool {
    match own {
        0 => next_of(said).is_none(),
        _ => said > own.max(ALWAYS).saturating_add(AHEAD),
    }
}

/// What follows `count`, as long as that leaves room for many more.
pub fn next_of(count: u64) -> Option<u64> {
    count.checked_add(AHEAD).map(|_| count + 1)
}

impl Said for AppendEntriesRequest<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        Some(self.vote)
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        let entries = self.entries.iter().map(|entry| entry.log_id);
        entries.chain(self.prev_log_id).chain(self.leader_commit)
    }
}

impl Said for AppendEntriesResponse<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        match self {
            Self::HigherVote(vote) => Some(*vote),
            Self::Success | Self::PartialSuccess(_) | Self::Conflict => None,
        }
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        let written = match self {
            Self::PartialSuccess(written) => *written,
            Self::Success | Self::Conflict | Self::HigherVote(_) => None,
        };
        written.into_iter()
    }
}

impl Said for VoteRequest<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        Some(self.vote)
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        self.last_log_id.into_iter()
    }
}

impl Said for VoteResponse<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        Some(self.vote)
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        self.last_log_id.into_iter()
    }
}

impl Said for SnapshotHead {
    fn vote(&self) -> Option<Vote> {
        Some(self.vote)
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        let meta = &self.header.meta;
        meta.last_log_id.into_iter().chain(*meta.last_membership.log_id())
    }
}

impl Said for SnapshotResponse<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        Some(self.vote)
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        std::iter::empty()
    }
}

impl Said for TransferLeaderRequest<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        Some(*self.from_leader())
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        self.last_log_id().copied().into_iter()
    }
}

impl Said for TransferLeaderResponse<TypeConfig> {
    fn vote(&self) -> Option<Vote> {
        match self {
            Err(TransferLeaderError::VoteChanged { actual, .. }) => Some(*actual),
            Ok(()) | Err(TransferLeaderError::LogNotFlushed { .. }) => None,
        }
    }

    fn named(&self) -> impl Iterator<Item = LogId> {
        std::iter::empty()
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::types::Entry;

    const LAST: u64 = u64::MAX - 1;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(openraft::impls::leader_id_adv::LeaderId::new(term, 2).to_committed(), index)
    }

    fn vote(term: u64) -> Vote {
        Vote::new(term, 2)
    }

    #[test]
    fn nobody_counts_to_the_end() {
        for (own, said, expected) in [
            (0, 7, false),
            (7, 0, false),
            (7, ALWAYS, false),
            (7, ALWAYS + AHEAD, false),
            (7, ALWAYS + AHEAD + 1, true),
            // A new node.
            (0, ALWAYS + AHEAD + 1, false),
            (0, u64::MAX - AHEAD, false),
            (0, LAST, true),
            (7, LAST, true),
            (7, u64::MAX, true),
            // Whoever has come so far goes on, step by step.
            (ALWAYS + AHEAD, ALWAYS + 2 * AHEAD, false),
            (ALWAYS + AHEAD, ALWAYS + 2 * AHEAD + 1, true),
            (LAST, u64::MAX, false),
        ] {
            assert_eq!(is_beyond(own, said), expected, "{said} at {own}");
            assert_eq!(why_not_term(said, own).is_some(), expected, "{said} at {own}");
        }
        for (count, expected) in [(0, Some(1)), (u64::MAX - AHEAD, Some(u64::MAX - AHEAD + 1)), (LAST, None)]
        {
            assert_eq!(next_of(count), expected, "{count}");
        }
    }

    #[test]
    fn a_message_is_believed_as_a_whole() {
        let own = Reach { term: 5, index: 40 };
        let check = |said: &dyn Fn(Reach) -> Option<String>, expected: Option<&str>| {
            assert_eq!(said(own).as_deref(), expected);
        };
        let append = |vote, prev, entry: Option<LogId>, commit| {
            let entries = entry.map(|log_id| Entry { log_id, payload: openraft::EntryPayload::Blank });
            let entries = entries.into_iter().collect();
            let said = AppendEntriesRequest::<TypeConfig> {
                vote,
                prev_log_id: prev,
                entries,
                leader_commit: commit,
            };
            move |own| why_not(&said, own)
        };
        let ask = |vote, last| {
            let said = VoteRequest::<TypeConfig>::new(vote, last);
            move |own| why_not(&said, own)
        };
        let answer = |said: AppendEntriesResponse<TypeConfig>| move |own| why_not(&said, own);
        let (sane, beyond) = (Some(id(5, 41)), Some(id(5, LAST)));
        let term = Some("nobody comes to term 18446744073709551614 where others are at 5");
        let index = Some("nobody comes to entry 18446744073709551614 where others are at 40");
        let later = Some("it names an entry of term 7, and is of term 6 itself");
        check(&append(vote(6), sane, Some(id(6, 42)), sane), None);
        check(&append(vote(LAST), sane, None, sane), term);
        check(&append(vote(6), beyond, None, None), index);
        check(&append(vote(6), None, beyond, None), index);
        check(&append(vote(6), None, None, beyond), index);
        check(&append(vote(6), sane, Some(id(7, 42)), None), later);
        check(&ask(vote(6), sane), None);
        check(&ask(vote(LAST), sane), term);
        check(&ask(vote(6), beyond), index);
        check(&answer(AppendEntriesResponse::HigherVote(vote(6))), None);
        check(&answer(AppendEntriesResponse::HigherVote(vote(LAST))), term);
        check(&answer(AppendEntriesResponse::PartialSuccess(sane)), None);
        check(&answer(AppendEntriesResponse::PartialSuccess(beyond)), index);
        let transfer = |vote: Vote| TransferLeaderRequest::<TypeConfig>::new(vote, 3, sane);
        assert_eq!(why_not(&transfer(vote(5)), own), None);
        assert_eq!(why_not(&transfer(vote(LAST)), own).as_deref(), term);
        let granted = |vote: Vote| VoteResponse::<TypeConfig>::new(vote, sane, false);
        assert_eq!(why_not(&granted(vote(6)), own), None);
        assert_eq!(why_not(&granted(vote(LAST)), own).as_deref(), term);
        assert_eq!(Reach::of(&transfer(vote(5))), Reach { term: 5, index: 41 });
    }
}
