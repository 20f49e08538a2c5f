//! The configuration of another proxy: an nginx.conf, or a Caddyfile if it begins with a `c`, which includes its own beginning.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use shoal_ctl::convert::{Dialect, Surroundings, convert};
use shoal_ctl::output::to_yaml;
use shoal_model::site::{parse_site, validate};

/// Every file has the same text.
struct Everywhere<'a>(&'a str);

impl Surroundings for Everywhere<'_> {
    fn read(&self, _: &Path, _: usize) -> Result<String, String> {
        Ok(self.0.to_owned())
    }

    fn matching(&self, _: &Path) -> Vec<PathBuf> {
        vec!["a".into(), "b".into()]
    }

    fn variable(&self, name: &str) -> Option<String> {
        name.len().is_multiple_of(2).then(|| name.to_owned())
    }
}

fuzz_target!(|text: &str| {
    let (from, text) = match text.strip_prefix('c') {
        Some(text) => (Dialect::Caddy, text),
        None => (Dialect::Nginx, text),
    };
    let included = &text[..text.floor_char_boundary(256)];
    let lines = text.lines().count() + 1;
    match convert(from, "fuzz", text, &Everywhere(included)) {
        Ok(converted) => {
            assert_eq!(validate(&converted.site), [], "what is written can be applied");
            let written = to_yaml(&converted.site).expect("a site is text");
            let read = parse_site("fuzz.yaml", &written).unwrap_or_else(|why| panic!("{why}\n{written}"));
            assert_eq!(read, converted.site, "what is printed is what was meant");
            for remark in converted.report {
                assert!(remark.line >= 1 && remark.column >= 1 && remark.line as usize <= lines);
                assert!(!remark.message.is_empty(), "{remark}");
            }
        }
        Err(mistake) => {
            assert!(
                mistake.place.line >= 1 && mistake.place.line as usize <= lines && mistake.place.column >= 1
            );
            assert!(!mistake.why.is_empty());
        }
    }
});
