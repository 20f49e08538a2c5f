//! The cookie of a session, for fuzzing: whatever a downstream sends, only what a node of the cluster has signed is believed.

use http::header::COOKIE;
use shoal_model::site::parse_site;
use shoal_model::{ConfigView, Revision};

use super::*;

const NOW: u64 = 1_700_000_000;
const SITE: &str =
    "upstreams: { app: { endpoints: [\"10.0.0.1:80\", \"10.0.0.2:80\"], sticky: { name: s, ttl: 1h } } }\n";

thread_local! {
    static STICKY: Sticky = sticky();
}

fn sticky() -> Sticky {
    let site = parse_site("fuzz.yaml", SITE).unwrap_or_else(|problem| panic!("{problem}"));
    let view = ConfigView::compile(Revision(1), &site).unwrap_or_else(|problems| panic!("{problems}"));
    let keys = Rc::new(StickyKeys::of(&StickySeed([7; 32])));
    view.upstreams.iter().find_map(|upstream| Sticky::of(upstream, &keys)).expect("it has sessions")
}

/// The fields of a request, and what becomes of a good cookie on its way: the byte at `place` is not what it was by
/// `change`.
pub fn session_cookie(fields: &HeaderMap, place: u8, change: u8) {
    STICKY.with(|sticky| {
        assert_eq!(sticky.read(fields, NOW), None, "who lacks the seed is not believed");
        let cookie = sticky.write(1, false, NOW).expect("there are two endpoints");
        let good = cookie.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        check_good(sticky, fields, good);
        let mut damaged = good.to_vec();
        let place = usize::from(place) % damaged.len();
        damaged[place] ^= change;
        if let Ok(damaged) = HeaderValue::from_bytes(&damaged) {
            let read = sticky.read(&HeaderMap::from_iter([(COOKIE, damaged)]), NOW);
            assert_eq!(read.is_some(), change == 0, "only what is as it was signed is believed");
        }
    });
}

/// The first cookie of its name is the one that counts, whatever stands beside it.
fn check_good(sticky: &Sticky, fields: &HeaderMap, good: &[u8]) {
    let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("it is text");
    let session = Session { place: 1, expiry: NOW + 3600 };
    let theirs = cookie(fields, "s");
    let mut after = fields.clone();
    after.append(COOKIE, value(good));
    assert_eq!(sticky.read(&after, NOW), theirs.is_none().then_some(session));
    let first = fields.get(COOKIE).map(HeaderValue::as_bytes).unwrap_or_default();
    let before = HeaderMap::from_iter([(COOKIE, value(&[good, b"; ", first].concat()))]);
    if before.get(COOKIE).is_some_and(|cookies| cookies.to_str().is_ok()) {
        assert_eq!(sticky.read(&before, NOW), Some(session));
    }
    assert_eq!(sticky.read(&before, session.expiry), None, "it has run out");
    for now in [0, NOW, session.expiry, u64::MAX] {
        assert_eq!(sticky.is_due(session.expiry, now), now != NOW, "{now}");
    }
}
