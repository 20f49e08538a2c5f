//! Which URLs share an object, by the word of the responses of their path (`No-Vary-Search`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, Uri};
use shoal_policy::cache::fields::Fields;
use shoal_policy::cache::key::{KeyParts, ObjectKey, url_of};
use shoal_policy::cache::search::{SearchRule, has_query, path_of};
use shoal_policy::cache::trust::Begun;

use crate::node::Cache;
use crate::object::Object;
use crate::recent::Recent;
use crate::residents::{PLACE_BYTES, Resident, Residents};

/// What the rules of paths may take, bytes; a path whose rule is not remembered has a key for each query.
const MAX_BYTES: u64 = 4 << 20;
/// What a rule costs beside its names.
const RULE_BYTES: u64 = 128;
/// For how long it is remembered that a path has changed while its rule was not known.
const CHANGE_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// How many such paths are remembered.
const MAX_CHANGED_PATHS: usize = 50_000;

/// The newest rule of each path.
pub(crate) struct SearchRules {
    seed: u64,
    rules: Residents<PathRule>,
    /// When some URL of a path has changed last without anybody here knowing what it is equal to, Unix milliseconds.
    changed: Recent<u64>,
    /// There has been one.
    is_used: AtomicBool,
}

#[derive(Clone)]
struct PathRule {
    key: ObjectKey,
    rule: Arc<SearchRule>,
}

impl Resident for PathRule {
    fn key(&self) -> ObjectKey {
        self.key
    }

    fn weight(&self) -> u64 {
        PLACE_BYTES + RULE_BYTES + self.rule.bytes() as u64
    }

    fn left(&self) {}
}

/// Where a response belongs.
pub(crate) enum Home {
    /// Under the key of its fill.
    Here,
    /// Under this key with this text: what other URLs ask for as well.
    Elsewhere(ObjectKey, Box<str>),
    /// It is not what the key of its fill stands for.
    Nowhere,
}

/// The URL that was asked for, where an equal one names the object.
#[derive(Clone)]
pub(crate) struct Alias {
    url: Box<[u8]>,
    /// What purges of it speak of.
    pub(crate) key: ObjectKey,
    /// When it may have changed last, Unix milliseconds: whoever hears of that without a rule forgets this URL alone.
    changed_ms: u64,
}

impl Cache {
    /// Makes `url` the one that names the object; answers what it was, if it was another.
    pub(crate) fn reduce(&self, url: &mut Vec<u8>) -> Option<Alias> {
        let asked = self.search.reduce(url)?;
        Some(Alias::new(self, asked))
    }
}

impl SearchRules {
    pub(crate) fn new(seed: u64) -> Self {
        let (rules, changed) = (Residents::new(MAX_BYTES), Recent::new(CHANGE_MEMORY, MAX_CHANGED_PATHS));
        Self { seed, rules, changed, is_used: AtomicBool::new(false) }
    }

    /// Makes `url` the one that names the object; answers what it was, if it was another.
    fn reduce(&self, url: &mut Vec<u8>) -> Option<Box<[u8]>> {
        let rule = self.rule(url)?;
        let asked: Box<[u8]> = (&**url).into();
        rule.reduce(url);
        (*url != *asked).then_some(asked)
    }

    fn rule(&self, url: &[u8]) -> Option<Arc<SearchRule>> {
        if !self.is_used.load(Ordering::Relaxed) || !has_query(url) {
            return None;
        }
        self.rules.find(self.path_key(url)).map(|known| known.rule)
    }

    /// `url` has changed. What it is equal to may be stored here, and that is only found out once there is a rule: what is
    /// older than this is not what the path's other URLs are answered from, then.
    pub(crate) fn note_change(&self, url: &str, now_ms: u64) {
        if self.rule(url.as_bytes()).is_none() {
            self.changed.note(self.path_key(url.as_bytes()), now_ms);
        }
    }

    /// When a URL of the path of this one has changed last while there was no rule, Unix milliseconds; 0 = not of late.
    pub(crate) fn last_change_ms(&self, url: &[u8]) -> u64 {
        self.changed.of(self.path_key(url)).unwrap_or_default()
    }

    /// The key of the object that a URL means beside its own.
    pub(crate) fn equal(&self, url: &str) -> Option<ObjectKey> {
        let mut url = url.as_bytes().to_vec();
        self.reduce(&mut url).map(|_| self.key(&url))
    }

    /// Where the response to a request for `target` with these fields belongs, if it came of a fill for the key with this
    /// text; its word is the newest for its path.
    pub(crate) fn home(&self, text: &str, target: &Uri, fields: &HeaderMap) -> Home {
        let asked = asked_url(text, target);
        let mut url = asked.clone().into_bytes();
        if let Some(rule) = self.learn(&url, fields) {
            rule.reduce(&mut url);
        }
        let (kept, route) = text.split_at(url_of(text).len());
        if url == kept.as_bytes() {
            Home::Here
        } else if asked == kept {
            let key = self.key(&url);
            Home::Elsewhere(key, [&*String::from_utf8_lossy(&url), route].concat().into())
        } else {
            Home::Nowhere
        }
    }

    fn learn(&self, url: &[u8], fields: &HeaderMap) -> Option<Arc<SearchRule>> {
        let rule = SearchRule::read(fields).map(Arc::new);
        if let Some(rule) = &rule {
            let (key, rule) = (self.path_key(url), rule.clone());
            self.rules.insert(PathRule { key, rule }, |_| {});
            self.is_used.store(true, Ordering::Relaxed);
        } else if self.is_used.load(Ordering::Relaxed) {
            self.rules.remove(self.path_key(url));
        }
        rule
    }

    fn path_key(&self, url: &[u8]) -> ObjectKey {
        self.key(path_of(url))
    }

    fn key(&self, url: &[u8]) -> ObjectKey {
        ObjectKey::of(self.seed, url)
    }
}

impl Alias {
    fn new(cache: &Cache, url: Box<[u8]>) -> Self {
        let key = cache.search.key(&url);
        let changed_ms = cache.last_change_ms(key).max(cache.search.last_change_ms(&url));
        Self { key, changed_ms, url }
    }

    /// The answer to a fill that has come so far cannot be older than what this URL is known to be.
    pub(crate) fn may_wait_for(&self, begun: Begun) -> bool {
        match begun {
            Begun::At(asked) => asked.wall_ms > self.changed_ms,
            Begun::NotYet | Begun::Elsewhere => true,
        }
    }

    /// What is stored is for this URL, too, and has not changed since by the name of this one.
    pub(crate) fn is_answered_by(&self, object: &Object) -> bool {
        object.terms.response_ms > self.changed_ms && self.is_served_by(&object.text, &object.fields)
    }

    /// The target of a request for the object whose key has this text; `None` = it is the URL of the key.
    pub(crate) fn of(cache: &Cache, text: &str, target: &Uri) -> Option<Self> {
        let url = asked_url(text, target);
        (url != url_of(text)).then(|| Self::new(cache, url.into_bytes().into()))
    }

    /// A response says by its fields that what is stored of it under the key with this text is for this URL, too.
    pub(crate) fn is_served_by(&self, text: &str, fields: &impl Fields) -> bool {
        SearchRule::read(fields).is_some_and(|rule| rule.reduces_to(&self.url, url_of(text).as_bytes()))
    }
}

/// The URL that a request asked for, by its target and the text of the key of the object.
fn asked_url(text: &str, target: &Uri) -> String {
    let path_and_query = target.path_and_query().map_or("/", |path| path.as_str());
    [KeyParts::origin(text), path_and_query].concat()
}
