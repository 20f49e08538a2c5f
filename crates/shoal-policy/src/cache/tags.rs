//! Tags of a response: names by which many objects are purged at once.

use http::header::{HeaderMap, HeaderName};

use super::key::{KeyParts, group_scope, tag_scope};
use super::structured::{Item, read_list};

/// Tags and groups of one object: what has more is not stored, since a purge of those left out would not find it (RFC 9875
/// §2 asks for at least 32 groups).
pub const MAX_TAGS: usize = 64;

/// Fields that name tags: for us, not for downstream.
pub static TAG_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The scopes of the tags in `Surrogate-Key`, `Cache-Tag` and `xkey` (bytes, separated by spaces or commas) and of the groups
/// in `Cache-Groups` (RFC 9875), sorted. `key` is the text of the object's key.
pub fn read_tags(seed: u64, key: &str, fields: &HeaderMap) -> Box<[u64]> {
    let tags = tags(fields).map(|tag| tag_scope(seed, tag));
    sorted(tags.chain(scopes_of_groups(seed, key, fields, &CACHE_GROUPS)).collect())
}

/// The same, for an object that had the scopes `held` and now has `fields`, of which `new` have just come: those that say
/// nothing of its tags, which are not among its fields, leave it those that it had.
pub fn renewed_tags(seed: u64, key: &str, held: &[u64], fields: &HeaderMap, new: &HeaderMap) -> Box<[u64]> {
    if TAG_FIELDS.iter().any(|name| new.contains_key(name)) {
        return read_tags(seed, key, fields);
    }
    let groups = scopes_of_groups(seed, key, fields, &CACHE_GROUPS);
    sorted(held.iter().copied().chain(groups).collect())
}

/// There are more of them than one object may have. What stands there twice counts once.
pub fn are_too_many(key: &str, fields: &HeaderMap) -> bool {
    let groups = read_groups(fields, &CACHE_GROUPS);
    tags(fields).count() + groups.len() > MAX_TAGS && read_tags(0, key, fields).len() > MAX_TAGS
}

/// The scopes of the groups that the answer to an unsafe request makes invalid (RFC 9875 §3). `target` is its URL: what is
/// of another origin is not concerned.
pub fn invalidated_groups(seed: u64, target: &str, fields: &HeaderMap) -> Vec<u64> {
    scopes_of_groups(seed, target, fields, &INVALIDATION).collect()
}

fn sorted(mut scopes: Vec<u64>) -> Box<[u64]> {
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into()
}

fn scopes_of_groups(
    seed: u64,
    url: &str,
    fields: &HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = u64> {
    read_groups(fields, name).into_iter().map(move |group| group_scope(seed, KeyParts::origin(url), &group))
}

fn tags(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = TAG_FIELDS.iter().flat_map(|name| fields.get_all(name));
    let tags = lines.flat_map(|line| line.as_bytes().split(|byte| matches!(byte, b' ' | b',' | b'\t')));
    tags.filter(|tag| !tag.is_empty())
}

/// The groups of a list of strings; a list with anything else in it is none.
fn read_groups(fields: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let members = read_list(fields, name).unwrap_or_default();
    let groups = members.into_iter().map(|member| match member {
        Item::Text(group) => Some(group),
        Item::Integer(_) | Item::Boolean(_) | Item::List(_) | Item::Other => None,
    });
    groups.collect::<Option<Vec<_>>>().unwrap_or_default()
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
    fn tags_are_bytes() {
        let read = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            read_tags(7, "http://a.org/x", &HeaderMap::from_iter([(TAG_FIELDS[1].clone(), value)]))
        };
        let expected = |tags: &[&[u8]]| sorted(tags.iter().map(|tag| tag_scope(7, tag)).collect());
        assert_eq!(read("product-17,café".as_bytes()), expected(&[b"product-17", "café".as_bytes()]));
        assert_eq!(read(b"a \xff\xfe, b"), expected(&[b"a", b"\xff\xfe", b"b"]));
        let group = HeaderValue::from_bytes("\"red\", \"café\"".as_bytes()).unwrap();
        let fields = HeaderMap::from_iter([(CACHE_GROUPS.clone(), group)]);
        assert!(read_tags(7, "http://a.org/x", &fields).is_empty(), "a string of a list is ASCII");
    }

    fn numbered(tags: usize, groups: usize) -> HeaderMap {
        let groups: Vec<String> = (0..groups).map(|n| format!("\"{n:032}\"")).collect();
        let tags: Vec<String> = (0..tags).map(|n| format!("t{n}")).collect();
        HeaderMap::from_iter([
            (CACHE_GROUPS.clone(), HeaderValue::try_from(groups.join(", ")).unwrap()),
            (TAG_FIELDS[0].clone(), HeaderValue::try_from(tags.join(" ")).unwrap()),
        ])
    }

    #[test]
    fn more_than_an_object_may_have_are_too_many() {
        let check = |tags, groups, expected: bool| {
            let fields = numbered(tags, groups);
            assert_eq!(are_too_many("http://a.org/x", &fields), expected, "{tags} {groups}");
            assert_eq!(read_tags(7, "http://a.org/x", &fields).len(), tags + groups, "none is left out");
        };
        check(0, 0, false);
        check(64, 0, false);
        check(65, 0, true);
        check(0, 64, false);
        check(0, 600, true);
        check(32, 32, false);
        check(32, 33, true);
        let twice = HeaderMap::from_iter([(
            TAG_FIELDS[0].clone(),
            HeaderValue::try_from("a b ".repeat(40)).unwrap(),
        )]);
        assert!(!are_too_many("http://a.org/x", &twice));
    }

    #[test]
    fn what_says_nothing_of_tags_leaves_them() {
        let fields = |fields: &[(&HeaderName, &'static str)]| {
            let fields =
                fields.iter().map(|(name, value)| ((*name).clone(), HeaderValue::from_static(value)));
            HeaderMap::from_iter(fields)
        };
        let (tag, group) = (tag_scope(7, "red"), group_scope(7, "http://a.org", "g"));
        let check = |merged: &[_], new: &[_], expected: &[u64]| {
            let held = sorted(vec![tag, group]);
            let renewed = renewed_tags(7, "http://a.org/x", &held, &fields(merged), &fields(new));
            assert_eq!(renewed, sorted(expected.to_vec()), "{merged:?} {new:?}");
        };
        // Groups stay among the fields of what is stored, tags do not.
        let (groups, tags) = (&CACHE_GROUPS, &TAG_FIELDS[0]);
        check(&[(groups, "\"g\"")], &[], &[tag, group]);
        check(&[], &[], &[tag, group]);
        let (two, more) = ("\"g\", \"h\"", group_scope(7, "http://a.org", "h"));
        check(&[(groups, two)], &[(groups, two)], &[tag, group, more]);
        let blue = tag_scope(7, "blue");
        check(&[(groups, "\"g\""), (tags, "blue")], &[(tags, "blue")], &[blue, group]);
        check(&[(tags, "")], &[(tags, "")], &[]);
    }

    #[test]
    fn groups_are_invalidated_at_home() {
        let fields =
            HeaderMap::from_iter([(INVALIDATION.clone(), HeaderValue::from_static(r#""a", "b";x"#))]);
        let expected = ["a", "b"].map(|group| group_scope(7, "http://a.org:81", group));
        assert_eq!(invalidated_groups(7, "http://a.org:81/x?y", &fields), expected);
        assert!(invalidated_groups(7, "http://a.org:81/x?y", &HeaderMap::new()).is_empty());
        let groups: Vec<String> = (0..600).map(|n| format!("\"{n}\"")).collect();
        let many =
            HeaderMap::from_iter([(INVALIDATION.clone(), HeaderValue::try_from(groups.join(", ")).unwrap())]);
        assert_eq!(invalidated_groups(7, "http://a.org/", &many).len(), 600, "none is left out");
    }
}
