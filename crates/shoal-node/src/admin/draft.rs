//! What the site is to become, worked out against what is active: laid over it, checked, and compared with it.

use std::sync::Arc;

use shoal_cluster::identity::sha256_hex;
use shoal_model::site::{Change, Delta, diff, holds_private_key};
use shoal_model::state::ConfigState;
use shoal_model::{Revision, Site};
use tonic::{Code, Status};

use super::base::{Base, blocking, stored_site};
use super::failure::{self, Exit, with_exit, with_revision};
use super::given::{Given, forgotten};
use super::relapse::{Relapse, suspects};
use super::stored_size::check_stored_size;
use crate::hard_work::{GivenUp, LIMIT, TRIALS};
use crate::node::Node;
use crate::sealed_site::redact;

/// What the site is to become.
pub(super) enum Goal {
    /// This, laid over what is active.
    Given(Arc<Given>),
    /// What it was in this revision; 0 = the one before the active one.
    Content(u64),
}

/// The same with everything at hand, so that it can be worked on elsewhere.
enum Source {
    /// With the content of the revision since which nothing may have changed, if another one is active.
    Given(Arc<Given>, Option<Arc<str>>),
    Stored(Arc<str>),
}

impl Goal {
    /// Whatever is given.
    pub fn given(given: Given) -> Self {
        Self::Given(Arc::new(given))
    }
}

/// The next revision, ready to be proposed.
pub(super) struct Draft {
    /// What it follows.
    pub base: Revision,
    /// As it is stored.
    pub text: String,
    pub changes: Vec<Change>,
    /// What it follows cannot be read: then nobody knows what it changes.
    pub replaces_unreadable: bool,
    /// What nodes are asked about.
    pub delta: Delta,
    /// By which the content is known again.
    pub fingerprint: String,
    /// What it brings back, unless it is known again as a whole.
    pub relapse: Option<Relapse>,
}

/// Works out what the site becomes, without holding up anything else.
pub(super) async fn draft(node: &Arc<Node>, base: &Base, goal: &Goal) -> Result<Draft, Status> {
    let (revision, active) = (base.revision, base.content.clone());
    let stored = |target| node.log.with_state(|state| state.revisions.content(target));
    let source = match goal {
        Goal::Given(given) => {
            let since = given.since.filter(|since| *since != revision);
            let then = since.map(|since| stored(since).ok_or_else(|| forgotten(since))).transpose()?;
            Source::Given(given.clone(), then)
        }
        Goal::Content(target) => {
            let target = Revision(if *target == 0 { revision.0.saturating_sub(1) } else { *target });
            Source::Stored(stored(target).ok_or_else(|| failure::no_such_revision(target))?)
        }
    };
    let identity = node.identity.clone();
    // Who goes back to what was in force once names it himself.
    let suspects = match goal {
        Goal::Given(_) => node.log.with_state(|state| suspects(&state.revisions)),
        Goal::Content(_) => Vec::new(),
    };
    let work = move || {
        let was_stored = matches!(source, Source::Stored(_));
        let read = stored_site(&active);
        let replaces_unreadable = was_stored && read.is_err();
        let active = if was_stored { read.unwrap_or_default() } else { read? };
        let (next, changes) = match source {
            Source::Given(given, then) => {
                let then = then.map(|then| stored_site(&then)).transpose()?;
                let over = given.over(&identity.secret, &active, then.as_ref());
                // What is wrong with it may be right over another one.
                over.map_err(|status| with_revision(status, revision))?
            }
            Source::Stored(content) => {
                let next = stored_site(&content)?;
                let changes = diff(&active, &next);
                (next, changes)
            }
        };
        let delta = Delta::between(&active, &next);
        let text = next.to_canonical_json();
        if !was_stored {
            check_stored_size(&text)?;
        }
        // Wherever it stands: what is in the log, everybody may read.
        if holds_private_key(&text) {
            let why = "the site holds a private key in clear; keys belong into `key_file` or `key_pem`";
            return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
        }
        let relapse = Relapse::of(&suspects, &active, &next);
        let fingerprint = fingerprint(next, &text);
        Ok(Draft { base: revision, text, changes, replaces_unreadable, delta, fingerprint, relapse })
    };
    let work = move || TRIALS.within(LIMIT, work).unwrap_or_else(|given_up| Err(indigestible(given_up)));
    let mut draft = blocking(work).await?;
    // As a whole it is what the log itself refuses.
    let is_known = |state: &ConfigState| state.revisions.quarantine().find(&draft.fingerprint).is_some();
    if node.log.with_state(is_known) {
        draft.relapse = None;
    }
    Ok(draft)
}

/// Nodes would not take it, whatever else it is.
fn indigestible(given_up: GivenUp) -> Status {
    match given_up.is_final() {
        true => with_exit(Code::InvalidArgument, Exit::Local, format!("nothing was changed: {given_up}")),
        false => with_exit(Code::ResourceExhausted, Exit::Remote, given_up.to_string()),
    }
}

/// The same for the same content: a key that is sealed again is another text, and is named by its own fingerprint.
fn fingerprint(site: Site, text: &str) -> String {
    match site.certificates.is_empty() {
        true => sha256_hex(text.as_bytes()),
        false => sha256_hex(redact(site).to_canonical_json().as_bytes()),
    }
}
