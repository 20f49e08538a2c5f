//! Web cache deception: a path that ends like a file is taken for one only if its content is one.

use http::header::{CONTENT_TYPE, HeaderMap};
use shoal_model::site::ContentClass;
use shoal_model::view::CacheRuleView;

/// The route caches this path. `path` is without its query.
pub fn is_cached_path(rule: &CacheRuleView, path: &str) -> bool {
    let Some(extensions) = &rule.extensions else { return true };
    extension(path).is_some_and(|end| extensions.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

/// The response is what the end of its path promises, where the route caches by that.
pub(super) fn content_agrees(rule: &CacheRuleView, path: &str, response: &HeaderMap) -> bool {
    if rule.extensions.is_none() {
        return true;
    }
    let promised = extension(path).and_then(|end| ContentClass::of_extension(&end.to_ascii_lowercase()));
    let mut lines = response.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let media_type = line.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    promised.is_some_and(|class| holds(class, &media_type.trim().to_ascii_lowercase()))
}

/// What follows the last dot of the last segment.
fn extension(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').map(|(_, end)| end)
}

/// Content of this media type is of this class.
fn holds(class: ContentClass, media_type: &str) -> bool {
    let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
    match class {
        ContentClass::Style => media_type == "text/css",
        ContentClass::Script => subtype.ends_with("javascript") || subtype == "ecmascript",
        ContentClass::Image => kind == "image",
        ContentClass::Font => {
            kind == "font"
                || subtype.starts_with("font-")
                || subtype.starts_with("x-font-")
                || subtype == "vnd.ms-fontobject"
        }
        ContentClass::Video => kind == "video",
        ContentClass::Audio => kind == "audio" || media_type == "application/ogg",
        ContentClass::Json => subtype == "json" || subtype.ends_with("+json"),
        ContentClass::Xml => subtype == "xml" || subtype.ends_with("+xml"),
        ContentClass::Text => media_type == "text/plain",
        ContentClass::Page => matches!(media_type, "text/html" | "application/xhtml+xml"),
        ContentClass::Pdf => media_type == "application/pdf",
        ContentClass::Wasm => media_type == "application/wasm",
        // Nobody's account looks like that.
        ContentClass::Archive => kind == "application" && !is_text(subtype),
    }
}

/// Something that a browser or a script reads, in an `application` type.
fn is_text(subtype: &str) -> bool {
    ["json", "xml", "javascript", "html"].iter().any(|text| subtype.contains(text))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use shoal_model::site::CacheRule;

    use super::*;

    fn rule(extensions: Option<&[&str]>) -> CacheRuleView {
        let extensions = extensions.map(|ends| ends.iter().map(|end| (*end).to_owned()).collect());
        CacheRuleView::compile(&CacheRule { extensions, ..CacheRule::default() })
    }

    #[test]
    fn a_page_is_no_picture_whatever_its_path_ends_in() {
        let rule = rule(Some(&["css", "js", "png", "woff2", "zip", "map"]));
        let check = |path: &str, media_type: &'static str, cached, agrees| {
            assert_eq!(is_cached_path(&rule, path), cached, "{path}");
            let fields = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
            assert_eq!(content_agrees(&rule, path, &fields), agrees, "{path} {media_type}");
        };
        check("/a.css", "text/css", true, true);
        check("/a.CSS", "Text/CSS; charset=utf-8", true, true);
        check("/account/a.css", "text/html", true, false);
        check("/account;a.css", "text/html", true, false);
        check("/account%2Fa.css", "text/html", true, false);
        check("/a.js", "application/javascript", true, true);
        check("/a.js", "text/html", true, false);
        check("/a.png", "image/png", true, true);
        check("/a.png", "", true, false);
        check("/a.woff2", "application/font-woff2", true, true);
        check("/a.zip", "application/octet-stream", true, true);
        check("/a.zip", "application/json", true, false);
        check("/a.map", "application/json", true, true);
        check("/a.gif", "image/gif", false, true);
        check("/a.css/b", "text/css", false, false);
        check("/css", "text/css", false, false);
        assert!(!content_agrees(&rule, "/a.css", &HeaderMap::new()));
        let mut twice = HeaderMap::new();
        twice.append(CONTENT_TYPE, HeaderValue::from_static("text/css"));
        twice.append(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        assert!(!content_agrees(&rule, "/a.css", &twice));
    }

    #[test]
    fn routes_that_do_not_go_by_paths_take_everything() {
        assert!(is_cached_path(&rule(None), "/account"));
        assert!(content_agrees(&rule(None), "/account.css", &HeaderMap::new()));
    }
}
