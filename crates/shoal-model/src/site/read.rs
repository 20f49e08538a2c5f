//! Text to [`Site`]: strict, and every complaint says where.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter};

use super::yaml::{MAX_SITE_BYTES, reading_options};
use super::{Kind, ObjectName, Problem, ProblemKind, Problems, Site, locate, validate};

/// Problems of meaning that are reported at once.
const MAX_PROBLEMS: usize = 50;

/// Reads and validates the site file `file`, whose content is `text` (YAML or JSON).
///
/// A problem of form ends the reading; problems of meaning are all reported.
pub fn read_site(file: &str, text: &str) -> Result<Site, Problems> {
    let site = parse_site(file, text).map_err(|problem| Problems(vec![problem]))?;
    let mut problems = validate(&site);
    if problems.is_empty() {
        return Ok(site);
    }
    let omitted = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    for problem in &mut problems {
        let (line, column) = locate(text, &problem.path).unwrap_or((1, 1));
        problem.place = Some((file.to_owned(), line, column));
    }
    problems.sort_by_key(|problem| problem.place.as_ref().map(|(_, line, column)| (*line, *column)));
    if omitted > 0 {
        problems.push(Problem::at("", format!("and {omitted} more problems")));
    }
    Err(Problems(problems))
}

/// Reads the site file `file` for its form only: what it refers to may stand in another file, or in the cluster.
pub fn parse_site(file: &str, text: &str) -> Result<Site, Problem> {
    parse(file, text, "a site has listeners, routes and upstreams")
}

/// Reads `file`, which holds nothing but the settings of one object, for its form.
pub fn parse_object(object: &ObjectName, file: &str, text: &str) -> Result<Site, Problem> {
    fn one<T: DeserializeOwned>(name: &str, file: &str, text: &str) -> Result<BTreeMap<String, T>, Problem> {
        Ok(BTreeMap::from([(name.to_owned(), parse(file, text, "an object has settings")?)]))
    }
    let ObjectName { kind, name } = object;
    let mut site = Site::default();
    let read = match kind {
        Kind::Listener => one(name, file, text).map(|one| site.listeners = one),
        Kind::Certificate => one(name, file, text).map(|one| site.certificates = one),
        Kind::Route => one(name, file, text).map(|one| site.routes = one),
        Kind::Upstream => one(name, file, text).map(|one| site.upstreams = one),
        Kind::DnsZone => one(name, file, text).map(|one| site.dns_zones = one),
    };
    read.map_err(|problem| {
        let dot = if problem.path.is_empty() || problem.path.starts_with('[') { "" } else { "." };
        Problem { path: format!("{}{dot}{}", object.path(), problem.path), ..problem }
    })?;
    Ok(site)
}

/// Whether `text` is a map with this key.
pub fn holds(text: &str, key: &str) -> bool {
    let read = serde_saphyr::from_str_with_options::<BTreeMap<String, IgnoredAny>>(text, reading_options());
    read.is_ok_and(|map| map.contains_key(key))
}

/// Reads `text` for its form; `expected` is what an empty one lacks.
fn parse<T: DeserializeOwned>(file: &str, text: &str, expected: &str) -> Result<T, Problem> {
    if text.len() > MAX_SITE_BYTES {
        let message =
            format!("{file} has {} bytes; a site file may have at most {MAX_SITE_BYTES}", text.len());
        return Err(Problem::at("", message));
    }
    if text.trim().is_empty() {
        return Err(Problem {
            place: Some((file.to_owned(), 1, 1)),
            path: String::new(),
            message: format!("the file is empty; {expected}"),
            kind: ProblemKind::Form,
        });
    }
    let mut path = String::new();
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(text, reading_options(), |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        });
    read.map_err(|error| {
        let place = error.location().map_or((1, 1), |at| (at.line() as u32, at.column() as u32));
        let message = match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
                format!("{:?} is written twice", key.as_deref().unwrap_or("a key"))
            }
            error => wording(error, &word_at(text, place)),
        };
        let path = path.trim_end_matches(['.', '?']).to_owned();
        let place = Some((file.to_owned(), place.0, place.1));
        Problem { place, path, message: one_line(&message), kind: ProblemKind::Form }
    })
}

/// What the parser says in the words of those who write sites; `found` is what stands there.
fn wording(error: &serde_saphyr::Error, found: &str) -> String {
    use serde_saphyr::Error;
    let expected = match error {
        Error::Unexpected { expected: "mapping start", .. } => "a map (`key: value` lines, or `{}`)",
        Error::Unexpected { expected: "sequence start", .. } => {
            "a list (`[a, b]`, or lines that begin with `- `)"
        }
        Error::Unexpected { expected: "string scalar", .. } => "a text",
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => "a whole number that is not below 0",
        Error::InvalidScalar { ty, .. } if ty.starts_with('i') => "a whole number",
        Error::InvalidScalar { ty, .. } if ty.starts_with('f') => "a number",
        Error::InvalidScalar { ty: "boolean" | "bool", .. } => "true or false",
        Error::MultipleDocuments { .. } => {
            return "a second document begins here; write all in one, or a file for each in a directory"
                .into();
        }
        error => return DefaultMessageFormatter.format_message(error).into_owned(),
    };
    if found.is_empty() {
        format!("expected {expected}")
    } else {
        format!("expected {expected}, found `{found}`")
    }
}

/// The beginning of the value at line and column, both from 1.
fn word_at(text: &str, (line, column): (u32, u32)) -> String {
    let rest = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
    let rest = rest.chars().skip(column.saturating_sub(1) as usize);
    let word: String = rest.take_while(|c| !matches!(c, ',' | '}' | ']' | '#')).take(40).collect();
    match word.trim() {
        // Its end is not among what was taken.
        map if map.starts_with('{') => "{…}".to_owned(),
        list if list.starts_with('[') && list.len() > 1 => "[…]".to_owned(),
        word => word.to_owned(),
    }
}

/// No control characters and no line breaks reach the operator's terminal.
fn one_line(message: &str) -> String {
    let mut line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > 400 {
        line.truncate(line.floor_char_boundary(400));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let lines: Vec<String> = match read_site("site.yaml", text) {
            Ok(_) => vec![],
            Err(problems) => problems.0.iter().map(Problem::to_string).collect(),
        };
        assert_eq!(lines, expected, "for\n{text}");
    }

    const GOOD: &str = "\
listeners:
  web: { address: \":8080\", protocol: http }
routes:
  shop:
    hosts: [shop.example.com]
    path_prefix: /
    upstream: shop
upstreams:
  shop:
    endpoints: [\"10.0.0.1:9000\", { address: \"10.0.0.2:9000\", weight: 3 }]
    health: { http: { path: /healthz }, interval: 5s, timeout: 2s, fall: 3, rise: 2 }
";

    #[test]
    fn a_good_site_reads() {
        check(GOOD, &[]);
        let site = read_site("site.yaml", GOOD).unwrap();
        assert_eq!(site.upstreams["shop"].endpoints[1].weight, Some(3));
        assert_eq!(Site::from_json(&site.to_canonical_json()).unwrap(), site);
        assert_eq!(read_site("site.json", &site.to_canonical_json()).unwrap(), site);
    }

    #[test]
    fn complaints_of_form_say_where() {
        check(
            &GOOD.replace("weight", "wieght"),
            &[
                "site.yaml:10:62: upstreams.shop.endpoints[1].wieght: unknown field `wieght`, expected one of \
               address, weight, drain, region, zone, capacity, priority",
            ],
        );
        check(
            &GOOD.replace("timeout: 2s", "timeout: 2"),
            &[
                "site.yaml:11:64: upstreams.shop.health.timeout: \"2\" has no unit; write it as \"2s\" or \"2ms\"",
            ],
        );
        check(
            "\"li\\e[2J\\u009bsteners\": {}",
            &["site.yaml:1:1: li [2J steners: unknown field `li [2J steners`, expected one of listeners, \
               certificates, routes, upstreams, dns_zones"],
        );
        check(
            "listeners: [",
            &["site.yaml:1:12: listeners: expected a map (`key: value` lines, or `{}`), found `[`"],
        );
        let cached = "routes: { a: { upstream: u, cache: true } }";
        check(
            cached,
            &["site.yaml:1:36: routes.a.cache: expected a map (`key: value` lines, or `{}`), found `true`"],
        );
        check(
            "upstreams: { u: { endpoints: 'a:1' } }",
            &[
                "site.yaml:1:30: upstreams.u.endpoints: expected a list (`[a, b]`, or lines that begin with `- `), \
               found `'a:1'`",
            ],
        );
        check(
            "upstreams: { u: { endpoints: { '0': 'a:1' } } }",
            &[
                "site.yaml:1:30: upstreams.u.endpoints: expected a list (`[a, b]`, or lines that begin with `- `), \
               found `{…}`",
            ],
        );
        check(
            "upstreams: { u: { endpoints: [{ address: 'a:1', weight: -1 }] } }",
            &[
                "site.yaml:1:57: upstreams.u.endpoints[0].weight: expected a whole number that is not below 0, \
               found `-1`",
            ],
        );
        check(
            "routes: {}\n---\nroutes: {}\n",
            &[
                "site.yaml:3:1: a second document begins here; write all in one, or a file for each in a directory",
            ],
        );
        check("", &["site.yaml:1:1: the file is empty; a site has listeners, routes and upstreams"]);
        check("routes: {}\nroutes: {}\n", &["site.yaml:2:1: \"routes\" is written twice"]);
    }

    #[test]
    fn an_object_is_read_by_itself() {
        let check = |object: &str, text: &str, expected: Result<(), &str>| {
            let read = parse_object(&object.parse().unwrap(), "it.yaml", text);
            let read = read.map(|site| assert!(site.has(&object.parse().unwrap())));
            assert_eq!(
                read.map_err(|problem| problem.to_string()),
                expected.map_err(str::to_owned),
                "{text}"
            );
        };
        check("route/shop", "upstream: shop\ncache: {}\n", Ok(()));
        check("upstream/a.b", "{ \"endpoints\": [\"h:1\"] }", Ok(()));
        check(
            "upstream/a.b",
            "endpoints: ['h:1']\nhealth: { interval: 2 }\n",
            Err(
                "it.yaml:2:21: upstreams.\"a.b\".health.interval: \"2\" has no unit; write it as \"2s\" or \"2ms\"",
            ),
        );
        check("route/shop", "", Err("it.yaml:1:1: routes.shop: the file is empty; an object has settings"));
        assert!(holds("routes: { shop: {} }", "routes"));
        assert!(!holds("upstream: shop", "routes") && !holds("[", "routes") && !holds("", "routes"));
    }

    #[test]
    fn complaints_of_meaning_say_where() {
        check(
            &GOOD.replace("upstream: shop", "upstream: shap"),
            &["site.yaml:7:15: routes.shop.upstream: there is no upstream \"shap\"; upstreams are: shop"],
        );
    }
}
