//! Whole files as people have them: `testdata/convert/NAME` beside the site and the report that come of it. What is
//! expected is written anew by `UPDATE_EXPECT=1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shoal_model::site::{parse_site, validate};

use super::surroundings::matches_name;
use super::{Conversion, Dialect, MAX_DEPTH, MAX_INCLUDE_DEPTH, MAX_INCLUDES, Surroundings, convert};
use crate::output::to_yaml;

/// Files that are not on disk, and a variable.
#[derive(Default)]
struct Shelf(BTreeMap<PathBuf, String>);

impl Shelf {
    fn with(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(name, text)| (PathBuf::from(name), text.to_string())).collect())
    }
}

impl Surroundings for Shelf {
    fn read(&self, file: &Path, _: usize) -> Result<String, String> {
        self.0.get(file).cloned().ok_or_else(|| format!("{} is not there", file.display()))
    }

    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let pattern = pattern.to_string_lossy();
        self.0.keys().filter(|name| matches_name(&pattern, &name.to_string_lossy())).cloned().collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "DOMAIN").then(|| "shop.example.com www.shop.example.com".to_owned())
    }
}

/// Compares what becomes of `testdata/convert/<name>` with what stands beside it.
fn check_file(from: Dialect, name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/convert");
    let text = std::fs::read_to_string(dir.join(name)).unwrap();
    let snippets =
        [("snippets/proxy.conf", std::fs::read_to_string(dir.join("snippets/proxy.conf")).unwrap())];
    let shelf = Shelf(snippets.map(|(name, text)| (PathBuf::from(name), text)).into());
    let converted = convert(from, name, &text, &shelf).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(validate(&converted.site), [], "{name}");
    let report: Vec<String> = converted.report.iter().map(ToString::to_string).collect();
    for (end, found) in [("yaml", to_yaml(&converted.site).unwrap()), ("report", report.join("\n") + "\n")] {
        let file = dir.join(format!("{name}.{end}"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(found, expected, "{} differs; UPDATE_EXPECT=1 rewrites it", file.display());
    }
}

#[test]
fn wordpress_behind_nginx() {
    check_file(Dialect::Nginx, "wordpress.conf");
}

#[test]
fn several_servers_behind_nginx() {
    check_file(Dialect::Nginx, "services.conf");
}

#[test]
fn php_and_files_are_nothing_to_proxy() {
    check_file(Dialect::Nginx, "php.conf");
}

#[test]
fn streams_of_nginx() {
    check_file(Dialect::Nginx, "stream.conf");
}

#[test]
fn a_typical_caddyfile() {
    check_file(Dialect::Caddy, "Caddyfile");
}

#[test]
fn a_caddyfile_of_one_site() {
    check_file(Dialect::Caddy, "single.Caddyfile");
}

fn try_nginx(text: &str, files: &[(&str, &str)]) -> Result<Conversion, String> {
    convert(Dialect::Nginx, "t", text, &Shelf::with(files)).map_err(|mistake| mistake.to_string())
}

fn try_caddy(text: &str, files: &[(&str, &str)]) -> Result<Conversion, String> {
    convert(Dialect::Caddy, "t", text, &Shelf::with(files)).map_err(|mistake| mistake.to_string())
}

#[test]
fn bad_files_are_refused_at_their_place() {
    let nginx =
        |text: &str, expected: &str| assert_eq!(try_nginx(text, &[]).unwrap_err(), expected, "{text}");
    nginx("http {\n  server {\n", "t:2:10: this `{` is never closed");
    nginx("a;\n}", "t:2:1: there is no `{` for this `}`");
    nginx("http {\n  listen 80\n}", "t:2:3: \"listen\" is not ended by `;`");
    nginx("a", "t:1:1: \"a\" is not ended by `;`");
    nginx(";", "t:1:1: there is no directive before this `;`");
    nginx("a; { }", "t:1:4: there is no directive before this `{`");
    nginx("a 'b;", "t:1:3: this ' is never closed");
    nginx("include a b;", "t:1:1: `include` takes one file or pattern");
    nginx("\n  include no.conf;", "t:2:3: no.conf is not there");
    let caddy =
        |text: &str, expected: &str| assert_eq!(try_caddy(text, &[]).unwrap_err(), expected, "{text}");
    caddy("a {\n  b\n", "t:1:3: this `{` is never closed");
    caddy("a {\n}\n}", "t:3:1: there is no `{` for this `}`");
    caddy("a {\n} b", "t:2:1: a `}` stands in a line of its own");
    caddy("a {\n}\nb c", "t:3:1: \"b\" stands in no site: addresses are followed by `{`");
    caddy("a {\n  import no\n}", "t:2:3: no is not there");
    caddy(
        "{$NO_SUCH}",
        "t:1:1: the variable NO_SUCH is not set here: set it, or give it a default as in {$NO_SUCH:…}",
    );
    caddy("{\"apps\": {}}", "t:1:1: this is Caddy's JSON: write it as a Caddyfile");
}

#[test]
fn a_mistake_in_an_included_file_is_told_there() {
    let found =
        try_nginx("include conf.d/*.conf;", &[("conf.d/a.conf", "a;\n"), ("conf.d/b.conf", "a;\n b")]);
    assert_eq!(found.unwrap_err(), "conf.d/b.conf:2:2: \"b\" is not ended by `;`");
}

#[test]
fn nothing_is_nested_or_included_without_end() {
    let deep = |n: usize| "a {".repeat(n) + &"}".repeat(n);
    assert!(try_nginx(&deep(MAX_DEPTH), &[]).is_ok());
    let too_deep = try_nginx(&deep(MAX_DEPTH + 1), &[]).unwrap_err();
    assert!(too_deep.ends_with("blocks are nested deeper than 32"), "{too_deep}");
    let itself = try_nginx("include t;", &[("t", "include t;")]).unwrap_err();
    assert_eq!(itself, format!("t:1:1: files include each other deeper than {MAX_INCLUDE_DEPTH}"));
    let often = "include a;".repeat(MAX_INCLUDES + 1);
    let often = try_nginx(&often, &[("a", "")]).unwrap_err();
    assert!(often.ends_with("more than 1000 files are included"), "{often}");

    let deep = |n: usize| "a {\n".repeat(n) + &"}\n".repeat(n);
    assert!(try_caddy(&deep(MAX_DEPTH), &[]).is_ok());
    assert!(try_caddy(&deep(MAX_DEPTH + 1), &[]).unwrap_err().ends_with("nested deeper than 32"));
    let itself = try_caddy("(a) {\nimport a\n}\nb {\nimport a\n}", &[]).unwrap_err();
    assert_eq!(itself, "t:2:1: imports stand in each other deeper than 16");
    // Each imports the next one twice.
    let doubling: String =
        (0..20).map(|n| format!("(s{n}) {{\nimport s{}\nimport s{}\n}}\n", n + 1, n + 1)).collect();
    assert!(try_caddy(&format!("{doubling}b {{\nimport s0\n}}"), &[]).is_err());
}

/// Lines and words of real files in another order, some of them twice or not at all: the fuzz target `convert` for a moment.
#[test]
fn whatever_is_written_becomes_a_valid_site_or_a_mistake() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/convert");
    let rounds = std::env::var("CONVERT_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    let (mut sites, mut seed) = (0, 1_u64);
    for name in
        ["wordpress.conf", "services.conf", "stream.conf", "php.conf", "Caddyfile", "single.Caddyfile"]
    {
        let from = if name.ends_with("file") { Dialect::Caddy } else { Dialect::Nginx };
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        let shelf = Shelf::with(&[("snippets/proxy.conf", &text[..text.floor_char_boundary(200)])]);
        for _ in 0..rounds {
            let mut words: Vec<&str> = text.split_inclusive([' ', '\n', ';']).collect();
            for _ in 0..6 {
                // Knuth's MMIX: which word, and what becomes of it.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = |shift: u32| (seed >> shift) as usize % words.len();
                let (a, b) = (place(20), place(40));
                match seed >> 62 {
                    0 => words.swap(a, b),
                    1 => words[a] = words[b],
                    2 => words.insert(a, words[b]),
                    _ => _ = words.remove(a),
                }
            }
            let text = words.concat();
            let Ok(converted) = convert(from, "t", &text, &shelf) else { continue };
            sites += usize::from(!converted.serves_nothing());
            assert_eq!(validate(&converted.site), [], "{text}");
            let written = to_yaml(&converted.site).unwrap();
            let read =
                parse_site("t.yaml", &written).unwrap_or_else(|why| panic!("{why}\n{written}\n{text}"));
            assert_eq!(read, converted.site, "{text}");
        }
    }
    assert!(sites > rounds, "of {} files only {sites} became sites", 6 * rounds);
}

#[test]
fn snippets_and_files_are_imported_with_their_arguments() {
    let text = "(app) {\n  reverse_proxy {args[0]} {\n    lb_policy {args[1]}\n  }\n}\nimport sites/*.caddy\n\
                {$DOMAIN} {\n  import app 10.0.0.1:9000 least_conn\n  tls a.pem a.key\n}\n";
    let files = [("sites/b.caddy", "http://b.example.com {\n  import app b:80 first\n}\n")];
    let site = try_caddy(text, &files).unwrap().site;
    assert_eq!(site.routes.keys().collect::<Vec<_>>(), ["b.example.com", "shop.example.com"]);
    assert_eq!(site.routes["shop.example.com"].hosts, ["shop.example.com", "www.shop.example.com"]);
    assert_eq!(site.upstreams["b"].endpoints[0].address, "b:80");
}

#[test]
fn what_a_server_answers_is_what_its_names_lead_to() {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let check = |text: &str, expected: &[(&str, &[&str], &[&str])]| {
        let site = try_nginx(text, &[]).unwrap().site;
        assert_eq!(site.routes.len(), expected.len(), "{text}");
        for (name, hosts, listeners) in expected {
            let route = &site.routes[*name];
            assert_eq!(
                (&route.hosts[..], &route.listeners[..]),
                (&words(hosts)[..], &words(listeners)[..]),
                "{text}"
            );
        }
    };
    let pass = "location / { proxy_pass http://app; }";
    check(&format!("server {{ server_name _; {pass} }}"), &[("app", &[], &[])]);
    check(&format!("server {{ server_name a.example; {pass} }}"), &[("a.example", &["a.example"], &[])]);
    check(
        &format!("server {{ listen 80 default_server; server_name a.example; {pass} }}"),
        &[("a.example", &[], &[])],
    );
    check(
        &format!("server {{ listen 80; listen 81 default_server; server_name .a.example; {pass} }}"),
        &[("a.example", &["a.example", "*.a.example"], &["http"]), ("a.example-2", &[], &["http-81"])],
    );
    check(
        &format!("server {{ server_name a.example; {pass} }} server {{ server_name b.*; {pass} }}"),
        &[("a.example", &["a.example"], &[])],
    );
}
