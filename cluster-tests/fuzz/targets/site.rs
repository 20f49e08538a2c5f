//! A site file: read, validated, compiled, written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_model::site::{Absent, MAX_SITE_BYTES, diff, merge, read_site, validate};
use shoal_model::{ConfigView, Revision, Site};

fuzz_target!(|text: &str| {
    let site = match read_site("fuzz.yaml", text) {
        Ok(site) => site,
        Err(problems) => {
            assert!(!problems.0.is_empty(), "a refusal has a reason");
            for problem in &problems.0 {
                let line = problem.to_string();
                assert!(!line.chars().any(char::is_control), "{line:?} would act on the terminal");
                if let Some((_, line, column)) = &problem.place {
                    assert!(
                        *line >= 1
                            && *column >= 1
                            && *line as usize <= text.matches(['\n', '\r']).count() + 2
                    );
                }
            }
            return;
        }
    };
    assert!(validate(&site).is_empty());
    let written = site.to_canonical_json();
    let again = Site::from_json(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, site, "what is stored is what was written");
    assert_eq!(again.to_canonical_json(), written);
    if written.len() <= MAX_SITE_BYTES {
        let read =
            read_site("fuzz.json", &written).unwrap_or_else(|problems| panic!("{problems}: {written}"));
        assert_eq!(read, site, "JSON is YAML");
    }
    assert!(diff(&site, &site).is_empty());
    assert_eq!(diff(&Site::default(), &site).is_empty(), site.is_empty());
    assert_eq!(merge(&site, site.clone(), Absent::Keep), site);
    // A key that is not sealed yet is all that can still be wrong.
    match ConfigView::compile(Revision(1), &site) {
        Ok(view) => assert_eq!(view.routes.len(), site.routes.len()),
        Err(problems) => assert!(!site.certificates.is_empty(), "{problems}: {written}"),
    }
});
