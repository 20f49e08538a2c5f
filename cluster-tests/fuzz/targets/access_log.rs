//! A template of the access log.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use shoal_model::log_format::{LogFormat, LogPart};
use shoal_model::site::AccessLog;
use shoal_model::{ConfigView, Revision, Site};

static SITE: LazyLock<Site> = LazyLock::new(|| {
    Site::from_json(r#"{"listeners":{"web":{"address":":80","protocol":"http"}}}"#).expect("a site")
});

fuzz_target!(|text: &str| {
    let Some(format) = compile(text) else { return };
    let LogFormat::Template(parts) = &format else {
        assert_eq!(text, "json");
        return;
    };
    let is_text = |part: &LogPart| matches!(part, LogPart::Text(_));
    assert!(!parts.windows(2).any(|two| two.iter().all(is_text)), "text is in one piece");
    assert!(!parts.iter().all(is_text), "a line says something of its request");
    let mut written = String::new();
    for part in parts {
        match part {
            LogPart::Text(text) => {
                assert!(!text.is_empty() && !text.chars().any(char::is_control), "a line stays one line");
                written.push_str(&text.replace('$', "$$"));
            }
            LogPart::Field(field) => {
                written.push_str("${");
                for (place, c) in format!("{field:?}").char_indices() {
                    if place > 0 && c.is_ascii_uppercase() {
                        written.push('_');
                    }
                    written.push(c.to_ascii_lowercase());
                }
                written.push('}');
            }
        }
    }
    assert_eq!(written, text, "it is written in one way only");
});

fn compile(format: &str) -> Option<LogFormat> {
    let mut site = SITE.clone();
    for listener in site.listeners.values_mut() {
        listener.access_log = Some(AccessLog { format: Some(format.to_owned()), ..AccessLog::default() });
    }
    let view = ConfigView::compile(Revision(1), &site).ok()?;
    let log = view.listeners.first()?.access_log.as_ref().expect("it was asked for");
    Some(log.format.clone())
}
