//! Revisions as they come, a line each.

use serde_json::Value;
use shoal_model::site::Kind;
use shoal_proto::admin::WatchResponse;

use super::units::moment;
use crate::failure::one_line;

/// Most objects that a line names.
const MAX_NAMED: usize = 8;

/// `revision 8 2026-01-01 12:00:00 ada@desk: route/shop, -upstream/old (why)`, or `revision 8, on trial …`; `put` is what `event` has as text.
pub fn revision(event: &WatchResponse, put: &Value) -> String {
    let at = moment(i64::try_from(event.at_ms / 1000).unwrap_or(i64::MAX));
    let objects_of = |kind: Kind| {
        let objects = put.get(kind.plural()).and_then(Value::as_object);
        objects.into_iter().flatten().map(move |(name, _)| format!("{}/{name}", kind.singular()))
    };
    let put = Kind::ALL.into_iter().flat_map(objects_of);
    let what = match event.event.as_str() {
        "full" => format!("{} objects in all", put.count()),
        _ => {
            let mut named: Vec<String> =
                put.chain(event.removed.iter().map(|object| format!("-{object}"))).collect();
            let others = named.len().saturating_sub(MAX_NAMED);
            named.truncate(MAX_NAMED);
            if others > 0 {
                named.push(format!("{others} more"));
            }
            named.join(", ")
        }
    };
    let why =
        if event.message.is_empty() { String::new() } else { format!(" ({})", one_line(&event.message)) };
    let trial = if event.on_trial { ", on trial" } else { "" };
    let (author, what) = (one_line(&event.author), one_line(&what));
    format!("revision {}{trial} {at} {author}: {what}{why}\n", event.revision)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revision_is_a_line() {
        let check = |kind: &str, put: Value, removed: &[&str], message: &str, expected: &str| {
            let event = WatchResponse {
                event: kind.into(),
                revision: 8,
                removed: removed.iter().map(ToString::to_string).collect(),
                author: "ada@desk".into(),
                message: message.into(),
                at_ms: 1_760_000_000_000,
                ..WatchResponse::default()
            };
            let at = moment(1_760_000_000);
            assert_eq!(revision(&event, &put), format!("revision 8 {at} ada@desk: {expected}\n"));
        };
        let put = json!({ "routes": { "a": {} }, "upstreams": { "u": {}, "v": {} } });
        check("full", put.clone(), &[], "", "3 objects in all");
        check(
            "delta",
            put,
            &["listener/old"],
            "why\nnot",
            "route/a, upstream/u, upstream/v, -listener/old (why; not)",
        );
        let many = Value::Object((0..10).map(|n| (format!("r{n}"), json!({}))).collect());
        check(
            "delta",
            json!({ "routes": many }),
            &[],
            "",
            "route/r0, route/r1, route/r2, route/r3, route/r4, route/r5, route/r6, route/r7, 2 more",
        );
    }
}
