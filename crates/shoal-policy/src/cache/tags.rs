//! Tags of a response: names by which many objects are purged at once.

use http::header::{HeaderMap, HeaderName};

use super::key::{KeyParts, group_scope, tag_scope};
use super::structured::{Item, read_list};

/// Tags of one object; what comes after is not kept.
pub const MAX_TAGS: usize = 64;
/// Groups of one response (RFC 9875 §2 asks for at least 32); they come first.
pub const MAX_GROUPS: usize = 32;

/// Fields that name tags: for us, not for downstream.
pub static TAG_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The scopes of the tags in `Surrogate-Key`, `Cache-Tag` and `xkey` (separated by spaces or commas) and of the groups in
/// `Cache-Groups` (RFC 9875), sorted. `key` is the text of the object's key.
pub fn read_tags(seed: u64, key: &str, fields: &HeaderMap) -> Box<[u64]> {
    let mut scopes: Vec<u64> = read_groups(fields, &CACHE_GROUPS)
        .map(|group| group_scope(seed, KeyParts::origin(key), &group))
        .collect();
    let lines = TAG_FIELDS.iter().flat_map(|name| fields.get_all(name));
    for line in lines.filter_map(|line| line.to_str().ok()) {
        let tags = line.split([' ', ',', '\t']).filter(|tag| !tag.is_empty());
        scopes.extend(tags.map(|tag| tag_scope(seed, tag)));
    }
    scopes.truncate(MAX_TAGS);
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into()
}

/// The scopes of the groups that the answer to an unsafe request makes invalid (RFC 9875 §3). `target` is its URL: what is
/// of another origin is not concerned.
pub fn invalidated_groups(seed: u64, target: &str, fields: &HeaderMap) -> Vec<u64> {
    if !fields.contains_key(&INVALIDATION) {
        return Vec::new();
    }
    read_groups(fields, &INVALIDATION)
        .map(|group| group_scope(seed, KeyParts::origin(target), &group))
        .collect()
}

/// The groups of a list of strings, up to [`MAX_GROUPS`]; a list with anything else in it is none.
fn read_groups(fields: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let members = read_list(fields, name).unwrap_or_default();
    let groups = members.into_iter().map(|member| match member {
        Item::Text(group) => Some(group),
        Item::Integer(_) | Item::Boolean(_) | Item::List(_) | Item::Other => None,
    });
    groups.collect::<Option<Vec<_>>>().unwrap_or_default().into_iter().take(MAX_GROUPS)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(fields: &[(&'static str, &'static str)], tags: &[&str], groups: &[&str]) {
        let map: HeaderMap = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let tags = tags.iter().map(|tag| tag_scope(7, tag));
        let groups = groups.iter().map(|group| group_scope(7, "http://a.org", group));
        let mut expected: Vec<u64> = tags.chain(groups).collect();
        expected.sort_unstable();
        assert_eq!(*read_tags(7, "http://a.org/x", &map), *expected, "{fields:?}");
    }

    #[test]
    fn every_spelling_of_a_tag_is_read() {
        check(&[("surrogate-key", "red  green")], &["red", "green"], &[]);
        check(&[("cache-tag", "red, green,red")], &["red", "green"], &[]);
        check(&[("xkey", "red"), ("surrogate-key", "blue")], &["red", "blue"], &[]);
        check(&[("cache-groups", r#""red", "a \"b\", c";p=1"#)], &[], &["red", "a \"b\", c"]);
        check(&[("cache-groups", r#""Red", "red""#), ("cache-tag", "red")], &["red"], &["Red", "red"]);
        // A list with a mistake in it, or with what is no string, is none.
        for wrong in
            [r#"red, "blue"#, r#""red", blue"#, r#""red" "blue""#, r#""red","#, r#""r\ed""#, r#"("red")"#]
        {
            check(&[("cache-groups", wrong)], &[], &[]);
        }
    }

    #[test]
    fn groups_come_before_tags_and_both_end_somewhere() {
        let groups: Vec<String> = (0..40).map(|n| format!("{n:032}")).collect();
        let quoted: Vec<String> = groups.iter().map(|group| format!("{group:?}")).collect();
        let tags: Vec<String> = (0..80).map(|n| format!("t{n}")).collect();
        let fields = HeaderMap::from_iter([
            (CACHE_GROUPS.clone(), HeaderValue::try_from(quoted.join(", ")).unwrap()),
            (TAG_FIELDS[0].clone(), HeaderValue::try_from(tags.join(" ")).unwrap()),
        ]);
        let scopes = read_tags(7, "http://a.org/x", &fields);
        assert_eq!(scopes.len(), MAX_TAGS);
        let has = |group: &String| scopes.contains(&group_scope(7, "http://a.org", group));
        assert!(groups[..MAX_GROUPS].iter().all(has) && !groups[MAX_GROUPS..].iter().any(has));
    }

    #[test]
    fn groups_are_invalidated_at_home() {
        let fields =
            HeaderMap::from_iter([(INVALIDATION.clone(), HeaderValue::from_static(r#""a", "b";x"#))]);
        let expected = ["a", "b"].map(|group| group_scope(7, "http://a.org:81", group));
        assert_eq!(invalidated_groups(7, "http://a.org:81/x?y", &fields), expected);
        assert!(invalidated_groups(7, "http://a.org:81/x?y", &HeaderMap::new()).is_empty());
    }
}
