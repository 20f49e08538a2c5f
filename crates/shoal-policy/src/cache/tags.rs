//! Tags of a response: names by which many objects are purged at once.

use http::header::{HeaderMap, HeaderName};

use super::key::{KeyParts, group_scope, tag_scope};

/// Tags of one object; what comes after is not kept.
pub const MAX_TAGS: usize = 64;

static TAG_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// The scopes of the tags in `Surrogate-Key`, `Cache-Tag` and `xkey` (separated by spaces or commas) and of the groups in
/// `Cache-Groups` (RFC 9875), sorted. `key` is the text of the object's key.
pub fn read_tags(seed: u64, key: &str, fields: &HeaderMap) -> Box<[u64]> {
    let mut scopes = Vec::new();
    let lines = TAG_FIELDS.iter().flat_map(|name| fields.get_all(name));
    for line in lines.filter_map(|line| line.to_str().ok()) {
        let tags = line.split([' ', ',', '\t']).filter(|tag| !tag.is_empty());
        scopes.extend(tags.map(|tag| tag_scope(seed, tag)));
    }
    let origin = KeyParts::origin(key);
    for line in fields.get_all(&CACHE_GROUPS).iter().filter_map(|line| line.to_str().ok()) {
        scopes.extend(strings(line).map(|group| group_scope(seed, origin, &group)));
    }
    scopes.truncate(MAX_TAGS);
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into()
}

/// The strings of a Structured Field list; a list with anything else in it is read as far as it goes.
fn strings(line: &str) -> impl Iterator<Item = String> {
    let mut rest = line.trim_start();
    std::iter::from_fn(move || {
        let mut characters = rest.strip_prefix('"')?.char_indices();
        let mut text = String::new();
        let mut end = None;
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = Some(at + 2);
                    break;
                }
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                other => text.push(other),
            }
        }
        let after = &rest[end?..];
        rest = after.find(',').map_or("", |comma| after[comma + 1..].trim_start());
        Some(text)
    })
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
        check(&[("cache-groups", r#"red, "blue"#)], &[], &[]);
    }
}
