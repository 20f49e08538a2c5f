//! Plays the scenarios of `testdata/cache/`: an exchange, then requests against what was stored of it.
//!
//! A scenario is a paragraph. `#` is its name, `>` a request field, `<` a response field, `status`, `method`, `delay`
//! (seconds the origin took), `at` (seconds after the response: a request is judged, with the `>>` fields given since).
//! `then` begins another exchange, and what is stored stays; `which` asks for the best of it, by number. `304` and `head`
//! read the `<<` fields as an answer about what was stored last. `rule` is what the route says, `path` what is asked for.
//! Lines that begin with `=` are the outcome: `UPDATE_EXPECT=1` writes them anew.

use std::fmt::Write;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use shoal_model::site::read_site;
use shoal_model::view::CacheRuleView;

use super::condition::is_not_modified;
use super::content_range::ContentRange;
use super::directives::Wishes;
use super::fields::stored_fields;
use super::preference::{Candidate, choose};
use super::range::{Extract, judge_part, judge_range};
use super::reuse::{Freshened, Reuse, Trouble, judge_reuse, may_serve_on_error};
use super::selecting::Selecting;
use super::storage::{Exchange, Storage, Stored, judge_storage};
use super::validation::{confirms, head_confirms, merged_fields, strong_validator};
use crate::failure::Failure;

/// Responses arrive at this second: Sun, 06 Nov 1994 08:49:37 GMT.
const EPOCH_MS: u64 = 784_111_777_000;
/// So long are the bodies of what is stored.
const BODY_BYTES: u64 = 5;

struct Scenario {
    method: Method,
    status: StatusCode,
    delay_ms: u64,
    rule: CacheRuleView,
    url: String,
    request: HeaderMap,
    response: HeaderMap,
    stored: Option<Option<Stored>>,
    /// All that were stored.
    kept: Vec<Kept>,
    next: HeaderMap,
    answer: HeaderMap,
    purge: Freshened,
    outcome: String,
}

/// A response that is stored.
struct Kept {
    selecting: Selecting,
    fields: HeaderMap,
    date: u64,
}

impl Kept {
    /// `n`: how many were stored before.
    const fn candidate(&self, n: usize) -> Candidate<'_, HeaderMap> {
        let Self { selecting, fields, date } = self;
        Candidate { selecting, fields, date: *date, response_ms: EPOCH_MS + n as u64 }
    }
}

impl Scenario {
    fn new() -> Self {
        Self {
            method: Method::GET,
            status: StatusCode::OK,
            delay_ms: 0,
            rule: read_rule("{}"),
            url: "http://a.org/".to_owned(),
            request: HeaderMap::new(),
            response: HeaderMap::new(),
            stored: None,
            kept: Vec::new(),
            next: HeaderMap::new(),
            answer: HeaderMap::new(),
            purge: Freshened::Untouched,
            outcome: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "#" | "" => {}
            ">" => add(&mut self.request, rest),
            "<" => add(&mut self.response, rest),
            ">>" => add(&mut self.next, rest),
            "<<" => add(&mut self.answer, rest),
            "method" => self.method = rest.parse().unwrap(),
            "status" => self.status = rest.parse().unwrap(),
            "delay" => self.delay_ms = seconds(rest).unsigned_abs(),
            "rule" => self.rule = read_rule(rest),
            "path" => self.url = format!("http://a.org{rest}"),
            "soft-purge" => self.purge = Freshened::SoftPurged,
            "forgotten" => self.purge = Freshened::Unknown,
            "store" => self.judge_storage(),
            "at" => self.judge_reuse(seconds(rest)),
            "then" => {
                let (kept, rule) = (std::mem::take(&mut self.kept), self.rule.clone());
                *self = Self { kept, rule, ..Self::new() };
            }
            "which" => self.choose(),
            "304" => self.judge_answer(confirms),
            "head" => self.judge_answer(|stored, answer| head_confirms(stored, BODY_BYTES, answer)),
            other => panic!("{other:?} is not a line of a scenario"),
        }
    }

    fn judge_storage(&mut self) {
        let exchange = Exchange {
            method: &self.method,
            request: &self.request,
            wishes: Wishes::read(&self.request),
            status: self.status,
            response: &self.response,
            request_ms: EPOCH_MS - self.delay_ms,
            response_ms: EPOCH_MS,
            rule: &self.rule,
            url: &self.url,
        };
        let stored = match judge_storage(&exchange) {
            Storage::Refuse(refusal) => {
                writeln!(self.outcome, "= not stored: {refusal:?}").unwrap();
                None
            }
            Storage::Store(stored) => {
                let terms = &stored.terms;
                write!(self.outcome, "= stored, lifetime {}", terms.lifetime_ms / 1000).unwrap();
                if terms.initial_age_ms > 0 {
                    write!(self.outcome, ", age {}", terms.initial_age_ms / 1000).unwrap();
                }
                if let Some(part) = self.part() {
                    write!(self.outcome, ", {part}").unwrap();
                }
                for name in &stored.without {
                    write!(self.outcome, ", without {name}").unwrap();
                }
                for name in stored_fields(&self.response, &stored.without)
                    .keys()
                    .filter(|name| name.as_str().starts_with("x-"))
                {
                    write!(self.outcome, ", with {name}").unwrap();
                }
                self.outcome.push('\n');
                self.kept.push(Kept {
                    selecting: Selecting::of(&stored.selectors, &self.request),
                    fields: stored_fields(&self.response, &stored.without),
                    date: stored.terms.date,
                });
                Some(stored)
            }
        };
        self.stored = Some(stored);
    }

    /// What of its body the response carries.
    fn part(&self) -> Option<ContentRange> {
        (self.status == StatusCode::PARTIAL_CONTENT).then(|| ContentRange::read(&self.response)).flatten()
    }

    /// What a request gets of the bytes that are here.
    fn extract(&self, next: &HeaderMap) -> String {
        let length = self.response.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let extract = match (self.part(), length) {
            (Some(part), _) => judge_part(next, &self.response, part.length, &[part.span]),
            (None, Some(length)) => Some(judge_range(next, self.status, &self.response, length)),
            (None, None) => return String::new(),
        };
        match extract {
            Some(Extract::Whole) => ", the whole".to_owned(),
            Some(Extract::Part(span)) => format!(", bytes {}-{}", span.first, span.last),
            Some(Extract::Parts(spans)) => {
                let spans = spans.iter().map(|span| format!(" {}-{}", span.first, span.last));
                format!(", bytes{}", spans.collect::<String>())
            }
            Some(Extract::Unsatisfiable) => ", no such bytes".to_owned(),
            None if strong_validator(&self.response).is_some() => ", once it is completed".to_owned(),
            None => ", but it stands alone".to_owned(),
        }
    }

    fn choose(&mut self) {
        let next = std::mem::take(&mut self.next);
        let candidates: Vec<_> = self.kept.iter().enumerate().map(|(n, kept)| kept.candidate(n)).collect();
        match choose(&next, &candidates) {
            Some(place) => writeln!(self.outcome, "= number {}", place + 1).unwrap(),
            None => writeln!(self.outcome, "= none of them").unwrap(),
        }
    }

    /// What an answer to the question whether the object is still good makes of it.
    fn judge_answer(&mut self, speaks_of: impl Fn(&HeaderMap, &HeaderMap) -> bool) {
        let answer = std::mem::take(&mut self.answer);
        let kept = self.kept.last().expect("something is stored");
        if !speaks_of(&kept.fields, &answer) {
            return writeln!(self.outcome, "= it is about something else").unwrap();
        }
        self.response = merged_fields(kept.fields.clone(), &answer);
        for (name, value) in &self.response {
            writeln!(self.outcome, "= {name}: {}", value.to_str().unwrap()).unwrap();
        }
        self.judge_storage();
    }

    fn judge_reuse(&mut self, after_ms: i64) {
        let next = std::mem::take(&mut self.next);
        let Some(Some(stored)) = &self.stored else { panic!("`at` before `store`, or nothing was stored") };
        let now_ms = EPOCH_MS.saturating_add_signed(after_ms);
        let terms = &stored.terms;
        let wishes = Wishes::read(&next);
        let mut outcome = match judge_reuse(terms, self.purge, &wishes, now_ms) {
            Reuse::Fresh => "fresh",
            Reuse::Stale { revalidate: true } => "stale, revalidated in the background",
            Reuse::Stale { revalidate: false } => "stale, as the request allows",
            Reuse::Validate => "validate",
            Reuse::ValidateOnRequest => "validate, as the request wants",
            Reuse::Unverified => "as the route says of what is not verified",
        }
        .to_owned();
        if !Selecting::of(&stored.selectors, &self.request).matches(&next) {
            outcome = "another variant".to_owned();
        } else if next.contains_key(AUTHORIZATION) && !terms.answers_authorized {
            outcome = "not for authorized requests".to_owned();
        } else if is_not_modified(&next, self.status, &self.response, terms.date) {
            outcome.push_str(", not modified");
        }
        outcome.push_str(&self.extract(&next));
        let most = Duration::from_secs(60);
        let rescue = |trouble| may_serve_on_error(terms, self.purge, &wishes, trouble, most, now_ms);
        for (trouble, name) in [
            (Trouble::Status(StatusCode::SERVICE_UNAVAILABLE), "a 503"),
            (Trouble::Failure(Failure::UpstreamConnectFailed), "a disconnect"),
        ] {
            if outcome.starts_with("validate") && rescue(trouble) {
                write!(outcome, ", stale on {name}").unwrap();
            }
        }
        writeln!(self.outcome, "= {outcome}, age {}", terms.age_ms(now_ms) / 1000).unwrap();
    }
}

/// Milliseconds.
fn seconds(text: &str) -> i64 {
    (text.parse::<f64>().unwrap() * 1000.0) as i64
}

fn read_rule(rule: &str) -> CacheRuleView {
    let site = format!(
        "listeners: {{ web: {{ address: \":80\", protocol: http }} }}\n\
         routes: {{ all: {{ upstream: app, cache: {rule} }} }}\n\
         upstreams: {{ app: {{ endpoints: [\"10.0.0.1:80\"] }} }}\n"
    );
    let site = read_site("scenario.yaml", &site).unwrap();
    CacheRuleView::compile(site.routes["all"].cache.as_ref().unwrap())
}

fn add(fields: &mut HeaderMap, line: &str) {
    let (name, value) = line.split_once(':').unwrap();
    let name: HeaderName = name.parse().unwrap();
    fields.append(name, HeaderValue::from_str(value.trim()).unwrap());
}

/// The file with every outcome as it is now.
fn play(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n").map(|paragraph| {
        let mut scenario = Scenario::new();
        let mut played = String::new();
        for line in paragraph.lines().filter(|line| !line.starts_with('=')) {
            scenario.line(line);
            writeln!(played, "{line}").unwrap();
            played.push_str(&std::mem::take(&mut scenario.outcome));
        }
        played
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

#[test]
fn scenarios_come_out_as_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/cache");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let files = [
        ("storing", include_str!("../../testdata/cache/storing.txt")),
        ("freshness", include_str!("../../testdata/cache/freshness.txt")),
        ("staleness", include_str!("../../testdata/cache/staleness.txt")),
        ("choosing", include_str!("../../testdata/cache/choosing.txt")),
        ("targeted", include_str!("../../testdata/cache/targeted.txt")),
        ("partial", include_str!("../../testdata/cache/partial.txt")),
        ("variants", include_str!("../../testdata/cache/variants.txt")),
        ("updating", include_str!("../../testdata/cache/updating.txt")),
        ("rules", include_str!("../../testdata/cache/rules.txt")),
    ];
    for (name, written) in files {
        let played = play(written);
        if update {
            std::fs::write(format!("{folder}/{name}.txt"), &played).unwrap();
        } else {
            assert_eq!(played, written, "{name}.txt: UPDATE_EXPECT=1 writes the outcomes anew");
        }
    }
}
