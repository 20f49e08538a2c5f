//! Fields of requests and responses that somebody here reads: caching, ranges, dates, traces, deadlines, addresses.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, RANGE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use shoal_fuzz::fields;
use shoal_model::site::CacheRule;
use shoal_model::view::{CacheRuleView, TrustedProxiesView};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::date::{parse_date, read_date};
use shoal_policy::cache::directives::{Directives, MAX_SECONDS, Wishes};
use shoal_policy::cache::fields::{is_hop_by_hop, stored_fields};
use shoal_policy::cache::range::{Extract, MAX_RANGES, asks_for_everything, judge_part, judge_range};
use shoal_policy::cache::reuse::{Freshened, Reuse, judge_reuse};
use shoal_policy::cache::selecting::{Selecting, Selector};
use shoal_policy::cache::span::{Segment, Span, plan};
use shoal_policy::cache::storage::{Exchange, Storage, judge_storage};
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::tags::{MAX_TAGS, are_too_many, read_tags};
use shoal_policy::cache::targeted::read_targeted;
use shoal_policy::cache::validation::merged_fields;
use shoal_policy::cache::vary::{MAX_VARY_FIELDS, Vary};
use shoal_policy::forwarding::{Caller, Client, enter_trace, prepare_response};
use shoal_policy::grpc;
use shoal_policy::http1::ResponseHead;

const NOW_MS: u64 = 1_700_000_000_000;
const NOW: u64 = NOW_MS / 1000;

fuzz_target!(|bytes: &[u8]| {
    let fields = fields(bytes);
    check_numbers(&fields);
    check_date(&fields);
    check_range(&fields, bytes.len() as u64);
    check_content_range(&fields);
    check_storage(&fields);
    check_trace(fields.clone());
    check_response(fields.clone());
    let networks = vec!["192.0.2.0/24".parse().expect("a network")];
    for header in ["x-forwarded-for", "forwarded"] {
        let proxies = TrustedProxiesView::new(networks.clone(), header.parse().expect("a name"));
        let stranger = Caller::new([198, 51, 100, 1].into(), false, &proxies);
        assert_eq!(Client::of(&fields, &stranger, &proxies).address, stranger.address, "a stranger's word");
        Client::of(&fields, &Caller::new([192, 0, 2, 1].into(), false, &proxies), &proxies);
    }
});

fn check_numbers(fields: &HeaderMap) {
    for read in [Some(Directives::read(fields)), read_targeted(fields)].into_iter().flatten() {
        let numbers = [read.max_age, read.s_maxage, read.stale_while_revalidate, read.stale_if_error];
        assert!(numbers.into_iter().flatten().all(|seconds| seconds <= MAX_SECONDS));
    }
    let wishes = Wishes::read(fields);
    assert!([wishes.max_age, wishes.min_fresh].into_iter().flatten().all(|seconds| seconds <= MAX_SECONDS));
    let deadline = grpc::timeout(fields).unwrap_or_default();
    assert!(deadline <= Duration::from_secs(99_999_999 * 3600));
    let tags = read_tags(7, "http://a/", fields);
    assert!(tags.is_sorted_by(|a, b| a < b), "none twice");
    assert_eq!(are_too_many("http://a/", fields), tags.len() > MAX_TAGS);
    if let Vary::Fields(names) = Vary::read(fields) {
        assert!(names.len() <= MAX_VARY_FIELDS && names.is_sorted_by(|a, b| a.as_str() < b.as_str()));
        let mut selectors: Vec<Selector> = names.into_iter().map(Selector::from).collect();
        selectors.push(Selector::Cookie("a".into()));
        let selecting = Selecting::of(&selectors, fields);
        assert!(selecting.matches(fields), "a request chooses its own variant");
        let parts = selecting.parts().map(|(selector, value)| (selector.clone(), value.map(<[u8]>::to_vec)));
        assert_eq!(Selecting::from_parts(parts), selecting);
    }
}

/// Two readers of dates agree.
fn check_date(fields: &HeaderMap) {
    let ours = read_date(fields, &DATE, NOW);
    let Some(text) = fields.get(DATE).and_then(|date| date.to_str().ok()) else { return };
    assert_eq!(ours, parse_date(text, NOW));
    // The other reader does not look at what stands before the time in the form of RFC 850, the one of four words.
    let is_spaced = text.split_ascii_whitespace().count() >= 4;
    if let Ok(theirs) = httpdate::parse_http_date(text)
        && let Ok(since) = theirs.duration_since(UNIX_EPOCH)
        && is_spaced
        // In a year of two digits the other reader does not go by what year it is.
        && !text.contains('-')
    {
        assert_eq!(ours, Some(since.as_secs()), "{text:?}");
    }
    if let Some(seconds) = ours.filter(|seconds| *seconds < 253_402_300_800) {
        let written = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(parse_date(&written, NOW), Some(seconds), "{text:?} is {written:?}");
    }
}

fn check_range(fields: &HeaderMap, length: u64) {
    for length in [0, 1, length, u64::MAX] {
        match judge_range(fields, StatusCode::OK, fields, length) {
            Extract::Whole => {}
            Extract::Part(span) => {
                assert!(span.first <= span.last && span.last < length);
                assert!(!asks_for_everything(fields) || Some(span) == Span::all(length));
                let held = judge_part(fields, fields, Some(length), &[span]);
                assert_eq!(held, Some(Extract::Part(span)), "what is asked for is enough");
                check_plan(span, length);
            }
            Extract::Parts(spans) => {
                assert!((2..=MAX_RANGES).contains(&spans.len()));
                assert!(spans.iter().all(|span| span.first <= span.last && span.last < length));
                let others = |n: usize| spans[n + 1..].iter();
                assert!((0..spans.len()).all(|n| others(n).all(|other| !other.touches(spans[n]))));
            }
            Extract::Unsatisfiable => assert!(fields.contains_key(RANGE)),
        }
        assert_eq!(judge_range(fields, StatusCode::NOT_FOUND, fields, length), Extract::Whole);
    }
}

/// What is held and what is fetched are what is wanted, in order.
fn check_plan(wanted: Span, length: u64) {
    let held =
        [Span { first: wanted.last / 2, last: wanted.last }, Span { first: length / 3, last: length / 2 }];
    for held in held.iter().filter(|held| held.first <= held.last) {
        let mut next = wanted.first;
        for segment in plan(&[*held], wanted) {
            let span = match segment {
                Segment::Held(span) => {
                    assert!(held.contains(span));
                    span
                }
                Segment::Missing(span) => span,
            };
            assert_eq!(span.first, next);
            next = span.last + 1;
        }
        assert_eq!(next, wanted.last + 1);
    }
}

fn check_content_range(fields: &HeaderMap) {
    if let Some(range) = ContentRange::read(fields) {
        assert!(range.span.first <= range.span.last);
        assert!(range.length.is_none_or(|length| range.span.last < length));
        let written = HeaderValue::try_from(range.to_string()).unwrap();
        let again = HeaderMap::from_iter([(CONTENT_RANGE, written)]);
        assert_eq!(ContentRange::read(&again), Some(range));
    }
}

fn check_storage(fields: &HeaderMap) {
    let wishes = Wishes::read(fields);
    let exchange = Exchange {
        method: &Method::GET,
        request: fields,
        wishes,
        status: StatusCode::OK,
        response: fields,
        request_ms: NOW_MS - 300,
        response_ms: NOW_MS,
        rule: &CacheRuleView::compile(&CacheRule::default()),
        url: "http://a.org/",
    };
    let Storage::Store(stored) = judge_storage(&exchange) else { return };
    assert!(!read_targeted(fields).unwrap_or_else(|| Directives::read(fields)).no_store);
    let terms = stored.terms;
    for now_ms in [0, NOW_MS, NOW_MS + 60_000, u64::MAX] {
        if judge_reuse(&terms, Freshened::Untouched, &wishes, now_ms) == Reuse::Fresh {
            assert!(terms.is_fresh(now_ms), "{terms:?}");
        }
        assert_ne!(judge_reuse(&terms, Freshened::Unknown, &wishes, now_ms), Reuse::Fresh);
    }
    let kept = stored_fields(fields, &stored.without);
    assert!(kept.keys().all(|name| !is_hop_by_hop(name) && !stored.without.contains(name)));
    assert_eq!(StoredFields::of(&kept).to_map(0), kept, "what is stored is what was kept");
    let merged = merged_fields(kept.clone(), fields);
    assert_eq!(merged_fields(merged.clone(), fields), merged, "once is enough");
    assert!(merged.keys().all(|name| !is_hop_by_hop(name)));
}

fn check_trace(mut fields: HeaderMap) {
    let Some(span) = enter_trace(&mut fields, false, || 0x5ea) else {
        assert!(!fields.contains_key("traceparent") && !fields.contains_key("tracestate"));
        return;
    };
    assert!(span.trace_id != 0 && span.parent_id.is_some_and(|parent| parent != 0));
    let next = enter_trace(&mut fields, false, || 0x5eb).expect("what is written can be read");
    assert_eq!((next.trace_id, next.parent_id), (span.trace_id, Some(span.span_id)), "one trace");
}

fn check_response(fields: HeaderMap) {
    let mut response = Response::new(());
    *response.headers_mut() = fields;
    let mut head = ResponseHead::from(response.into_parts().0);
    if prepare_response(&mut head, &Method::GET, false).is_err() {
        return;
    }
    let head = head.parts;
    assert!(head.headers.get_all(CONTENT_LENGTH).iter().count() <= 1, "framed in one way");
    let length = head.headers.get(CONTENT_LENGTH);
    assert!(
        length.is_none_or(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit))
    );
    assert!(!head.headers.contains_key(TRANSFER_ENCODING));
    assert!(!head.headers.contains_key("connection") && !head.headers.contains_key("upgrade"));
}
