//! `shoal cache get`: everything that is stored of a URL, on every node.

use std::sync::Arc;

use shoal_model::NodeId;
use shoal_proto::admin::{CacheGetRequest, CacheGetResponse, StoredObject};
use shoal_proto::cache::{ObjectInfo, PurgeVerdict, SelectingField};
use tonic::Status;

use super::cache::{kept_as, location, look_up_on, named_members, role_of, sort_by_role};
use crate::node::Node;

/// Asks the nodes, all at once.
pub async fn get(node: &Arc<Node>, request: &CacheGetRequest) -> Result<CacheGetResponse, Status> {
    let mut response = CacheGetResponse::default();
    let members = named_members(node, &request.node)?;
    for kept in kept_as(node, &request.url)? {
        if response.key.is_empty() {
            response.key = kept.key.to_string();
        }
        for (id, name, found) in look_up_on(node, members.clone(), kept.key, true).await {
            let role = role_of(id, kept.owners);
            response.locations.push(location(id, name.clone(), role, found.as_ref()));
            let objects = found.map(|found| found.objects).unwrap_or_default();
            response.objects.extend(objects.into_iter().map(|object| stored(id, &name, role, object)));
        }
    }
    sort_by_role(&mut response.locations, |location| &location.role);
    sort_by_role(&mut response.objects, |object| &object.role);
    Ok(response)
}

fn stored(id: NodeId, name: &str, role: &str, object: ObjectInfo) -> StoredObject {
    let state = match object.purge() {
        PurgeVerdict::Gone => "purged",
        PurgeVerdict::Stale => "soft_purged",
        PurgeVerdict::Unknown => "unknown",
        // A node of before says nothing of what was purged.
        PurgeVerdict::Valid | PurgeVerdict::Unspecified if object.ttl_seconds <= 0 => "stale",
        PurgeVerdict::Valid | PurgeVerdict::Unspecified => "fresh",
    };
    let tier = match (object.in_memory, object.on_disk) {
        (true, true) => "both",
        (false, true) => "disk",
        (_, false) => "memory",
    };
    StoredObject {
        node_id: id.0,
        node: name.to_owned(),
        role: role.to_owned(),
        selecting: selecting(&object.selecting),
        url: object.url,
        route: object.route,
        tier: tier.to_owned(),
        status: object.status,
        body_bytes: object.body_bytes,
        whole: object.whole,
        age_seconds: object.age_seconds,
        ttl_seconds: object.ttl_seconds,
        state: state.to_owned(),
        etag: object.etag,
        hits: object.hits,
        unused_seconds: object.unused_seconds,
        tags: object.tags.iter().map(|tag| format!("{tag:016x}")).collect(),
        fill_seq: object.fill_seq,
        checked_seq: object.checked_seq,
        promoted: object.promoted,
        held_bytes: object.held_bytes,
    }
}

/// Selecting fields as text: `name: value`, or the name alone where the request had none.
pub(super) fn selecting(fields: &[SelectingField]) -> Vec<String> {
    let text = |field: &SelectingField| match &field.value {
        Some(value) => format!("{}: {}", field.name, String::from_utf8_lossy(value)),
        None => field.name.clone(),
    };
    fields.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_purge_has_made_of_it_comes_before_its_age() {
        let check = |purge: PurgeVerdict, ttl_seconds, expected: &str| {
            let object = ObjectInfo { purge: purge.into(), ttl_seconds, ..ObjectInfo::default() };
            assert_eq!(stored(NodeId(1), "a", "none", object).state, expected, "{purge:?} {ttl_seconds}");
        };
        check(PurgeVerdict::Valid, 5, "fresh");
        check(PurgeVerdict::Valid, 0, "stale");
        check(PurgeVerdict::Unspecified, 5, "fresh");
        check(PurgeVerdict::Stale, 5, "soft_purged");
        check(PurgeVerdict::Gone, -5, "purged");
        check(PurgeVerdict::Unknown, 5, "unknown");
    }
}
