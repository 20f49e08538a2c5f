//! What differs between two revisions, and how operators are told of changes.

use std::sync::Arc;

use shoal_model::Revision;
use shoal_model::site::{Action, Change, diff};
use shoal_proto::admin::{ChangeAction, DiffRequest, DiffResponse, FieldChange};
use tonic::Status;

use super::base::{blocking, newest_base, staleness_ms, stored_site};
use super::failure;
use crate::node::Node;

/// The changes that make one revision of another; keys are compared by their fingerprints.
pub async fn differences(node: &Arc<Node>, request: &DiffRequest) -> Result<DiffResponse, Status> {
    let (base, quorum) = newest_base(node).await?;
    let content = |revision: Revision| match revision == base.revision {
        true => Ok(base.content.clone()),
        false => node
            .log
            .with_state(|state| state.revisions.content(revision))
            .ok_or_else(|| failure::no_such_revision(revision)),
    };
    let from = Revision(request.from_revision);
    let to = if request.to_revision == 0 { base.revision } else { Revision(request.to_revision) };
    let (before, after) = (content(from)?, content(to)?);
    let changes = blocking(move || Ok(diff(&stored_site(&before)?, &stored_site(&after)?))).await?;
    Ok(DiffResponse {
        from_revision: from.0,
        to_revision: to.0,
        changes: changes.iter().map(change_message).collect(),
        quorum,
        staleness_ms: staleness_ms(node),
    })
}

/// A change as operators are told of it.
pub(super) fn change_message(change: &Change) -> shoal_proto::admin::Change {
    let action = match change.action {
        Action::Add => ChangeAction::Add,
        Action::Remove => ChangeAction::Remove,
        Action::Change => ChangeAction::Change,
    };
    let field = |field: &shoal_model::site::FieldChange| FieldChange {
        path: field.path.clone(),
        old: field.old.clone().unwrap_or_default(),
        new: field.new.clone().unwrap_or_default(),
    };
    shoal_proto::admin::Change {
        action: action.into(),
        kind: change.kind.to_owned(),
        name: change.name.clone(),
        fields: change.fields.iter().map(field).collect(),
    }
}
