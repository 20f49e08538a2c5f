//! Under which key the log remembers what a request has answered: whoever comes again with an id must be the same caller, and
//! want the same.

use shoal_cluster::identity::sha256_hex;
use shoal_model::state::{ConfigState, Reply};
use tonic::{Code, Status};

use super::failure::{self, Exit, with_exit};

/// Hex digits of the digest that stands for a caller and an id.
const WHO_DIGITS: usize = 32;
/// Hex digits of the digest that stands for what is wanted.
const WHAT_DIGITS: usize = 16;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A new revision.
    Change,
    /// A revision that is to stay.
    Confirm,
    /// A revision that is to go.
    Abort,
    /// A rollout that is to stop, to go on, or to go faster.
    Step,
    /// Objects that are to be forgotten. Programs with a token ask for that, too: their ids are apart from those of operators.
    Purge,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Confirm => "confirm",
            Self::Abort => "abort",
            Self::Step => "step",
            Self::Purge => "purge",
        }
    }

    fn answers_with(self, reply: &Reply) -> bool {
        match self {
            Self::Change | Self::Abort => matches!(reply, Reply::Published(_)),
            Self::Confirm => matches!(reply, Reply::Confirmed(_)),
            Self::Step => matches!(reply, Reply::Done | Reply::Confirmed(_)),
            Self::Purge => matches!(reply, Reply::Purged { .. }),
        }
    }
}

/// A request that is done once.
#[derive(Clone, Debug)]
pub struct RequestKey {
    subject: Subject,
    /// As the caller has chosen it; empty = it is done as often as it comes.
    id: String,
    who: String,
    what: String,
}

impl RequestKey {
    /// Of the request in which `caller` wants `meaning`. Errs when the id is too long.
    pub fn of(subject: Subject, caller: &str, id: &str, meaning: &[&str]) -> Result<Self, Status> {
        failure::check_length("the request id", id, failure::MAX_REQUEST_ID)?;
        let digest = |parts: &[&str], digits| {
            // Each with its length: no two lists are written alike.
            let written: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
            sha256_hex(written.as_bytes()).chars().take(digits).collect::<String>()
        };
        let realm = if subject == Subject::Purge { "purges" } else { "site" };
        let (who, what) = match id {
            "" => Default::default(),
            id => (digest(&[realm, caller, id], WHO_DIGITS), digest(meaning, WHAT_DIGITS)),
        };
        Ok(Self { subject, id: id.to_owned(), who, what })
    }

    /// As the log has it.
    pub fn text(&self) -> String {
        match self.id.is_empty() {
            true => String::new(),
            false => format!("{}.{}.{}", self.who, self.subject.name(), self.what),
        }
    }

    /// What it has answered, if it was carried out not too long ago. Errs when its id was for something else.
    pub fn answered(&self, state: &ConfigState) -> Result<Option<Reply>, Status> {
        if self.id.is_empty() {
            return Ok(None);
        }
        if let Some(reply) = state.answered(&self.text()) {
            return Ok(Some(reply.clone()));
        }
        if state.has_answered_below(&format!("{}.", self.who)) {
            let why = format!("the request id {:?} was used for something else; take a new one", self.id);
            return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
        }
        // From a node of before there were keys.
        Ok(state.answered(&self.id).filter(|reply| self.subject.answers_with(reply)).cloned())
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::Revision;
    use shoal_model::state::{Command, SiteText, Terms};

    use super::*;

    fn key(subject: Subject, caller: &str, id: &str, meaning: &[&str]) -> RequestKey {
        RequestKey::of(subject, caller, id, meaning).unwrap()
    }

    #[test]
    fn an_id_is_for_one_request_of_one_caller() {
        let mut state = ConfigState::default();
        let mut publish = |index, request_id: String| {
            let command = Command::Publish {
                request_id,
                expected: None,
                site: SiteText::Inline("{}".to_owned()),
                author: String::new(),
                message: String::new(),
                at_ms: 1,
                counts: [0; 3],
                terms: Terms::default(),
            };
            state.apply(index, command)
        };
        let done = Some(publish(1, key(Subject::Change, "ann", "7", &["a"]).text()));
        let of_before = Some(publish(2, "8".to_owned()));
        assert_eq!(
            (&done, &of_before),
            (&Some(Reply::Published(Revision(1))), &Some(Reply::Published(Revision(2))))
        );
        let check = |subject, caller: &str, id: &str, meaning: &[&str], expected: Option<&Option<Reply>>| {
            let answered = key(subject, caller, id, meaning).answered(&state);
            assert_eq!(answered.as_ref().ok(), expected, "{subject:?} {caller} {id} {meaning:?}");
        };
        check(Subject::Change, "ann", "7", &["a"], Some(&done));
        check(Subject::Change, "ann", "7", &["b"], None);
        check(Subject::Change, "ann", "7", &["a", ""], None);
        check(Subject::Abort, "ann", "7", &["a"], None);
        check(Subject::Confirm, "ann", "7", &[], None);
        check(Subject::Purge, "ann", "7", &["a"], Some(&None));
        check(Subject::Change, "bob", "7", &["a"], Some(&None));
        check(Subject::Change, "ann", "", &["a"], Some(&None));
        check(Subject::Change, "ann", "8", &["a"], Some(&of_before));
        check(Subject::Confirm, "ann", "8", &["a"], Some(&None));
        assert!(key(Subject::Change, "ann", "", &[]).text().is_empty());
        assert!(RequestKey::of(Subject::Change, "ann", &"x".repeat(65), &[]).is_err());
    }
}
