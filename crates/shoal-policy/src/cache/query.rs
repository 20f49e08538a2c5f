//! The query of a request as far as the route lets it count: so it is kept, and so the origin sees it.

use shoal_model::view::{NamePattern, QueryView};

/// Writes path and query without the parameters that do not count. Nothing is decoded and nothing is moved: what is written
/// otherwise is another parameter.
pub fn write_counted(text: &mut Vec<u8>, rule: &QueryView, path_and_query: &str) {
    let (path, query) = match (rule, path_and_query.split_once('?')) {
        (QueryView::All, _) | (_, None) => return text.extend_from_slice(path_and_query.as_bytes()),
        (QueryView::Only(_) | QueryView::Without(_), Some(parts)) => parts,
    };
    text.extend_from_slice(path.as_bytes());
    let mut separator = b'?';
    for parameter in query.split('&').filter(|parameter| counts(rule, parameter)) {
        text.push(separator);
        text.extend_from_slice(parameter.as_bytes());
        separator = b'&';
    }
}

fn counts(rule: &QueryView, parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or(parameter);
    let is_listed = |names: &[NamePattern]| names.iter().any(|pattern| pattern.matches(name));
    match rule {
        QueryView::All => true,
        QueryView::Only(names) => is_listed(names),
        QueryView::Without(names) => !is_listed(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count_is_left_out_and_the_rest_stays_as_it_is() {
        let exact = |name: &str| NamePattern::Exact(name.into());
        let without = QueryView::Without([exact("fbclid"), NamePattern::Prefix("utm_".into())].into());
        let only = QueryView::Only([exact("page")].into());
        for (rule, asked, expected) in [
            (&QueryView::All, "/x?utm_a=1&b", "/x?utm_a=1&b"),
            (&without, "/x", "/x"),
            (&without, "/x?", "/x?"),
            (&without, "/x?b=2&utm_a=1&a=%31&fbclid", "/x?b=2&a=%31"),
            (&without, "/x?utm_a=1", "/x"),
            (&without, "/x?utm=1&%75tm_a=1&fbclids=1", "/x?utm=1&%75tm_a=1&fbclids=1"),
            (&only, "/x?page=2&evil=1&page=3", "/x?page=2&page=3"),
            (&only, "/x?Page=2&&=", "/x"),
        ] {
            let mut text = Vec::new();
            write_counted(&mut text, rule, asked);
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{asked}");
        }
    }
}
