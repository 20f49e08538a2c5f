//! What is stored of a URL, what is used most, and what came of fetching ahead.

use std::fmt::Write as _;

use serde::Serialize;
use shoal_proto::admin::{CacheGetResponse, CacheTopResponse, CacheWarmResponse, StoredObject};

use super::table::Columns;
use super::units::{bytes, span};
use crate::failure::{escaped, one_line};

/// Failures that a summary names.
const MAX_NAMED: usize = 1000;

/// The key of a URL, a row for each stored variant on each node, and who has none.
pub fn stored(response: &CacheGetResponse) -> String {
    let mut text = format!("key {}\n", one_line(&response.key));
    let mut columns = Columns::new([
        "NODE",
        "OWNER",
        "ROUTE",
        "TIER",
        "STATE",
        "STATUS",
        "SIZE",
        "AGE",
        "FRESH FOR",
        "HITS",
        "UNUSED",
        "FILL SEQ",
        "CHECKED",
    ]);
    for object in &response.objects {
        columns.row::<13>([
            object.node.clone(),
            owner(object),
            object.route.clone(),
            object.tier.clone(),
            object.state.clone(),
            object.status.to_string(),
            size(object),
            span(u64::try_from(object.age_seconds).unwrap_or_default()),
            u64::try_from(object.ttl_seconds).map_or_else(|_| "no longer".to_owned(), span),
            object.hits.to_string(),
            span(object.unused_seconds),
            object.fill_seq.to_string(),
            object.checked_seq.to_string(),
        ]);
    }
    text.push_str(&columns.text());
    for (n, object) in response.objects.iter().enumerate() {
        let is_told = response.objects[..n].iter().any(|before| details(before) == details(object));
        if let (false, details) = (is_told, details(object))
            && !details.is_empty()
        {
            let _ = writeln!(text, "{}", one_line(&escaped(&format!("{}: {details}", object.url))));
        }
    }
    for location in response.locations.iter().filter(|location| location.state != "held") {
        let role = if location.role == "none" { "no owner" } else { &location.role };
        let _ = writeln!(
            text,
            "{} ({}): {}",
            one_line(&location.node),
            one_line(role),
            one_line(&location.state)
        );
    }
    text
}

fn owner(object: &StoredObject) -> String {
    match (object.role.as_str(), object.promoted) {
        ("none", true) => "none, hot".to_owned(),
        (role, _) => role.to_owned(),
    }
}

fn size(object: &StoredObject) -> String {
    let all = bytes(object.body_bytes);
    match object.held_bytes {
        _ if object.whole => all,
        Some(held_bytes) => format!("{} of {all}", bytes(held_bytes)),
        None => format!("{all} in part"),
    }
}

/// What chose the variant, its ETag, its tags.
fn details(object: &StoredObject) -> String {
    let mut details: Vec<String> = object.selecting.clone();
    if !object.etag.is_empty() {
        details.push(format!("etag {}", object.etag));
    }
    if !object.tags.is_empty() {
        details.push(format!("tags {}", object.tags.join(" ")));
    }
    details.join("; ")
}

/// A row for each object, and who has told nothing.
pub fn hottest(response: &CacheTopResponse) -> String {
    let mut columns = Columns::new(["HITS/S", "HITS", "SIZE", "SAVED", "NODES", "ROUTE", "URL"]);
    for object in &response.objects {
        let variant = object.selecting.iter().map(|field| format!(" [{field}]")).collect::<String>();
        columns.row([
            format!("{:.1}", object.hits_per_second),
            object.hits.to_string(),
            bytes(object.body_bytes),
            bytes(object.saved_bytes),
            object.nodes.join(","),
            object.route.clone(),
            escaped(&format!("{}{variant}", object.url)),
        ]);
    }
    let mut text = columns.text();
    if text.is_empty() {
        text.push_str("nothing in memory was used\n");
    }
    for node in &response.silent {
        let _ = writeln!(text, "{} has not answered", one_line(node));
    }
    text
}

/// What came of fetching ahead.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Warmed {
    stored: u64,
    fresh: u64,
    uncacheable: u64,
    failed: u64,
    refused: u64,
    bytes: u64,
    /// The first ones that are not stored.
    not_stored: Vec<CacheWarmResponse>,
}

impl Warmed {
    /// One more is done.
    pub fn count(&mut self, one: &CacheWarmResponse) {
        let number = match one.state.as_str() {
            "stored" => &mut self.stored,
            "fresh" => &mut self.fresh,
            "uncacheable" => &mut self.uncacheable,
            "refused" => &mut self.refused,
            _ => &mut self.failed,
        };
        *number += 1;
        if one.state == "stored" {
            self.bytes += one.body_bytes;
        }
        if not_warmed(one).is_some() && self.not_stored.len() < MAX_NAMED {
            self.not_stored.push(one.clone());
        }
    }

    /// How many are done.
    pub fn all(&self) -> u64 {
        self.stored + self.fresh + self.failed()
    }

    /// How many of them are not stored.
    pub fn failed(&self) -> u64 {
        self.uncacheable + self.failed + self.refused
    }

    /// All are stored.
    pub fn is_complete(&self) -> bool {
        self.failed() == 0
    }
}

/// The line of a URL that is not stored in the end.
pub fn not_warmed(one: &CacheWarmResponse) -> Option<String> {
    let why = match one.state.as_str() {
        "stored" | "fresh" => return None,
        "uncacheable" => {
            let answer = match one.status {
                0 => "its answers are".to_owned(),
                status => format!("its answer ({status}) is"),
            };
            let why = if one.detail.is_empty() { String::new() } else { format!(": {}", one.detail) };
            format!("{answer} not stored{why}")
        }
        _ => one.detail.clone(),
    };
    let by = if one.node.is_empty() { String::new() } else { format!(" ({})", one.node) };
    Some(one_line(&format!("{}: {}: {why}{by}", one.url, one.state)) + "\n")
}

/// The summary.
pub fn warmed(warmed: &Warmed) -> String {
    let Warmed { stored, fresh, bytes: stored_bytes, .. } = warmed;
    let mut text = format!("{} stored ({}), {fresh} were there and fresh", stored, bytes(*stored_bytes));
    for (count, what) in
        [(warmed.uncacheable, "uncacheable"), (warmed.failed, "failed"), (warmed.refused, "refused")]
    {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::{HotUrl, Location};

    use super::super::check_golden;
    use super::*;

    #[test]
    fn every_variant_on_every_node_is_a_row() {
        let object = |node: &str, role: &str, tier: &str, state: &str, ttl_seconds| StoredObject {
            node: node.into(),
            role: role.into(),
            tier: tier.into(),
            state: state.into(),
            url: "http://shop.example.com/logo.svg".into(),
            route: "shop".into(),
            selecting: vec!["accept-encoding: gzip\u{202e}".into(), "=tier".into()],
            status: 200,
            body_bytes: 1536,
            whole: true,
            age_seconds: 72,
            ttl_seconds,
            etag: "\"v1\"".into(),
            hits: 4711,
            unused_seconds: 3,
            tags: vec!["00000000000000ff".into()],
            fill_seq: 12,
            checked_seq: 17,
            ..StoredObject::default()
        };
        let location = |node: &str, role: &str, state: &str| Location {
            node: node.into(),
            role: role.into(),
            state: state.into(),
            ..Location::default()
        };
        let mut objects = vec![
            object("b", "primary", "both", "fresh", 48),
            object("a", "secondary", "disk", "purged", -5),
            object("c", "none", "memory", "fresh", 20),
        ];
        (objects[1].whole, objects[1].held_bytes) = (false, Some(512));
        objects.push(StoredObject { held_bytes: None, ..objects[1].clone() });
        objects[2].promoted = true;
        let response = CacheGetResponse {
            key: "00ff".into(),
            locations: vec![location("b", "primary", "held"), location("d", "none", "unreachable")],
            objects,
        };
        check_golden("stored", &stored(&response));
    }

    #[test]
    fn what_is_used_most_comes_first() {
        let hot = HotUrl {
            url: "http://shop.example.com/\u{1b}[31m".into(),
            route: "shop".into(),
            selecting: vec!["accept-language: de".into()],
            hits_per_second: 120.55,
            hits: 9000,
            body_bytes: 2048,
            saved_bytes: 9000 * 2048,
            nodes: vec!["a".into(), "b".into()],
        };
        let response = CacheTopResponse { objects: vec![hot], window_ms: 2000, silent: vec!["c".into()] };
        check_golden("hottest", &hottest(&response));
        assert_eq!(hottest(&CacheTopResponse::default()), "nothing in memory was used\n");
    }

    #[test]
    fn failures_are_counted_and_the_first_are_named() {
        let one = |state: &str, status, detail: &str| CacheWarmResponse {
            url: "http://a/x".into(),
            state: state.into(),
            status,
            detail: detail.into(),
            body_bytes: 1024,
            node: if detail.is_empty() { String::new() } else { "a".into() },
            ..CacheWarmResponse::default()
        };
        let mut sum = Warmed::default();
        for (one, line) in [
            (one("stored", 200, ""), None),
            (one("fresh", 200, ""), None),
            (one("uncacheable", 200, ""), Some("http://a/x: uncacheable: its answer (200) is not stored\n")),
            (one("uncacheable", 0, ""), Some("http://a/x: uncacheable: its answers are not stored\n")),
            (
                one("uncacheable", 200, "set-cookie"),
                Some("http://a/x: uncacheable: its answer (200) is not stored: set-cookie (a)\n"),
            ),
            (one("failed", 0, "upstream_reset"), Some("http://a/x: failed: upstream_reset (a)\n")),
        ] {
            assert_eq!(not_warmed(&one).as_deref(), line);
            sum.count(&one);
        }
        assert_eq!((sum.all(), sum.failed(), sum.is_complete()), (6, 4, false));
        assert_eq!(warmed(&sum), "1 stored (1.0 KiB), 1 were there and fresh, 3 uncacheable, 1 failed\n");
        (0..MAX_NAMED).for_each(|_| sum.count(&one("failed", 0, "x")));
        assert_eq!(sum.not_stored.len(), MAX_NAMED);
    }
}
