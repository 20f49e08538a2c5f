//! Finding the object for a request, and judging it.

use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, Method};
use shoal_model::site::{RangeMiss, RequestDirectives};
use shoal_model::view::CacheRuleView;
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::preference::{self, Candidate};
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::range::{Extract, judge_range};
use shoal_policy::cache::reuse::{Freshened, Reuse, judge_reuse};
use shoal_policy::cache::selecting::{Selecting, Selector};
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::span::Span;
use shoal_policy::cache::status::Forwarded;
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::trust::Trust;

use crate::chunks::Cut;
use crate::fill::{Errand, FillHead};
use crate::node::Cache;
use crate::object::Object;
use crate::portion::Portion;
use crate::purges::Purges;
use crate::search::Alias;
use crate::variants::Variants;

/// What a lookup found, on its way to being answered.
pub struct Probe {
    pub(crate) key: ObjectKey,
    pub(crate) text: Box<str>,
    /// What was asked for, where that is not the URL of the key.
    pub(crate) alias: Option<Alias>,
    pub(crate) wishes: Wishes,
    pub(crate) signs: Signs,
    /// The object that fits, which may not be used just like that.
    pub(crate) found: Option<Found>,
    /// What of it the request is about.
    pub(crate) portion: Portion,
    pub(crate) why: Forwarded,
    /// By what known variants of the URL are chosen.
    pub(crate) selectors: Vec<Selector>,
    /// It was counted as what it is before it came to reading chunks.
    pub(crate) is_counted: bool,
}

/// An object that fits a request.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) object: Arc<Object>,
    pub(crate) purge: Freshened,
    pub(crate) reuse: Reuse,
    /// What the request gets of it; `None` = it asks for more than is here.
    pub(crate) cut: Option<Cut>,
}

impl Found {
    /// It has all that the request asks for, in memory: what lies in chunks may be here even if it does not.
    pub(crate) const fn suffices(&self) -> bool {
        self.cut.is_some()
    }

    /// It may be used, and lies in chunks that are not all in memory.
    pub(crate) fn reads_chunks(&self) -> bool {
        self.cut.is_none() && self.reuse == Reuse::Fresh && self.object.chunked().is_some()
    }

    /// The bytes that a request with these fields gets of the chunks, if it gets any.
    pub(crate) fn wanted_of_chunks(&self, fields: &HeaderMap) -> Option<Wanted> {
        let (object, length) = (&self.object, self.object.chunked()?.length());
        match judge_range(fields, object.status, &object.fields, length) {
            Extract::Part(span) => Some(Wanted { object: object.clone(), span, is_part: true }),
            Extract::Whole | Extract::Parts(_) => {
                Some(Wanted { object: object.clone(), span: Span::all(length)?, is_part: false })
            }
            Extract::Unsatisfiable => None,
        }
    }
}

/// What of an object in chunks a request is about.
pub(crate) struct Wanted {
    pub(crate) object: Arc<Object>,
    pub(crate) span: Span,
    /// It is told that it is a part.
    pub(crate) is_part: bool,
}

/// What a request asks of the cache, read in one pass over its fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signs {
    pub(crate) is_conditional: bool,
    pub(crate) has_precondition: bool,
    pub(crate) has_range: bool,
    pub(crate) is_authorized: bool,
    pub(crate) has_directives: bool,
}

impl Signs {
    pub(crate) fn read(fields: &HeaderMap) -> Self {
        let mut signs = Self::default();
        for name in fields.keys() {
            match *name {
                IF_NONE_MATCH | IF_MODIFIED_SINCE => signs.is_conditional = true,
                IF_MATCH | IF_UNMODIFIED_SINCE => signs.has_precondition = true,
                RANGE => signs.has_range = true,
                AUTHORIZATION => signs.is_authorized = true,
                CACHE_CONTROL => signs.has_directives = true,
                _ => {}
            }
        }
        signs
    }

    /// A stored response answers it as it lies.
    pub(crate) const fn is_plain(self) -> bool {
        !(self.is_conditional
            || self.has_precondition
            || self.has_range
            || self.is_authorized
            || self.has_directives)
    }
}

/// The wishes of a request, if the route heeds them.
pub(crate) fn wishes(rule: &CacheRuleView, signs: Signs, fields: &HeaderMap) -> Wishes {
    match rule.request_directives {
        RequestDirectives::Honor if signs.has_directives => Wishes::read(fields),
        RequestDirectives::Honor | RequestDirectives::Ignore => Wishes::default(),
    }
}

/// The request is of a kind that is answered from the store.
pub(crate) fn is_cacheable_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The outcome of looking through the variants of a key.
pub(crate) enum Choice {
    Found(Found),
    /// There are others, chosen by these.
    OtherVariants(Vec<Selector>),
    Nothing,
}

/// The variant that fits the request best and was not purged.
fn choose(variants: &Variants, sought: &Sought<'_>, purges: &Purges) -> Option<(Arc<Object>, Freshened)> {
    let Sought { text, alias, fields: request, signs, .. } = *sought;
    let may_answer = |object: &&Arc<Object>| {
        object.text.as_bytes() == text
            && (!signs.is_authorized || object.terms.answers_authorized)
            && alias.is_none_or(|alias| alias.is_answered_by(object))
    };
    let valid = |object: &Arc<Object>| Some((object.clone(), purges.check_for(object, alias)?));
    if let [only] = variants.objects() {
        return Some(only)
            .filter(may_answer)
            .filter(|only| only.selecting().matches(request))
            .and_then(valid);
    }
    let mut found: Vec<_> = variants.objects().iter().filter(may_answer).filter_map(valid).collect();
    let candidates: Vec<Candidate<'_, StoredFields>> =
        found.iter().map(|(object, _)| object.candidate()).collect();
    let place = preference::choose(request, &candidates)?;
    Some(found.swap_remove(place))
}

/// What chooses among the responses stored for a text: the word of the most recent one that has any.
pub(crate) fn known_selectors(variants: &Variants, text: &[u8]) -> Vec<Selector> {
    let of_text = variants.objects().iter().filter(|object| object.text.as_bytes() == text);
    let choosing = of_text.filter(|object| !object.selecting().is_empty());
    let newest = choosing.max_by_key(|object| (object.terms.date, object.terms.response_ms));
    newest.map(|object| object.selecting().selectors()).unwrap_or_default()
}

/// What a lookup goes by.
#[derive(Clone, Copy)]
pub(crate) struct Sought<'a> {
    /// The text of the key.
    pub(crate) text: &'a [u8],
    /// What was asked for, where that is not the URL of the key.
    pub(crate) alias: Option<&'a Alias>,
    /// The method of the request.
    pub(crate) method: &'a Method,
    /// The fields of the request.
    pub(crate) fields: &'a HeaderMap,
    pub(crate) signs: Signs,
    pub(crate) wishes: &'a Wishes,
    pub(crate) trust: Trust,
    pub(crate) now_ms: u64,
}

/// Chooses and judges.
pub(crate) fn look(variants: Option<&Variants>, sought: &Sought<'_>, purges: &Purges) -> Choice {
    let Some(variants) = variants else { return Choice::Nothing };
    let Sought { text, method, fields: request, signs, wishes, trust, now_ms, .. } = *sought;
    match choose(variants, sought, purges) {
        Some((object, purge)) => {
            let reuse = trust.limit(judge_reuse(&object.terms, purge, wishes, now_ms));
            let is_whole = !signs.has_range && object.body.is_whole();
            let cut = if is_whole { Some(Cut::whole()) } else { object.cut(method, request) };
            Choice::Found(Found { object, purge, reuse, cut })
        }
        None => {
            let selectors = known_selectors(variants, text);
            // What fits and was purged, or is not for this request, is no other variant.
            let is_chosen = |object: &Arc<Object>| {
                object.text.as_bytes() == text
                    && !object.selecting().is_empty()
                    && object.selecting().matches(request)
            };
            if selectors.is_empty() || variants.objects().iter().any(is_chosen) {
                return Choice::Nothing;
            }
            Choice::OtherVariants(selectors)
        }
    }
}

impl Probe {
    /// `sought` was looked for under `key`, and `choice` came of it.
    pub(crate) fn new(key: ObjectKey, sought: &Sought<'_>, choice: Choice) -> Self {
        let Sought { text, alias, method, fields, signs, wishes, .. } = *sought;
        let asked = if signs.has_range { Portion::of(method, fields) } else { Portion::Whole };
        // What is whole is validated as a whole, whatever is cut out of it.
        let is_whole = matches!(&choice, Choice::Found(found) if found.object.body.is_whole());
        let portion = if is_whole { Portion::Whole } else { asked };
        let (found, why, selectors) = match choice {
            Choice::Found(found) => {
                let why = match found.reuse {
                    Reuse::ValidateOnRequest => Forwarded::Request,
                    _ if !found.suffices() => Forwarded::Partial,
                    Reuse::Fresh | Reuse::Stale { .. } | Reuse::Validate | Reuse::Unverified => {
                        Forwarded::Stale
                    }
                };
                let selectors = found.object.selecting().selectors();
                (Some(found), why, selectors)
            }
            Choice::OtherVariants(selectors) => (None, Forwarded::VaryMiss, selectors),
            Choice::Nothing => (None, Forwarded::UriMiss, Vec::new()),
        };
        // The target of a request is ASCII once it has passed the gate; what is not is replaced, and never found again.
        let text = String::from_utf8_lossy(text).into_owned().into_boxed_str();
        let (alias, wishes, is_counted) = (alias.cloned(), *wishes, false);
        Self { key, text, alias, wishes, signs, found, portion, why, selectors, is_counted }
    }

    /// It is to be put together from the chunks of an object that may be used.
    pub(crate) fn reads_chunks(&self) -> bool {
        self.found.as_ref().is_some_and(Found::reads_chunks)
    }

    /// What a range of what is not there is about, where `rule` wants the whole fetched for it.
    pub(crate) fn heed_range_miss(&mut self, rule: &CacheRuleView) {
        if self.is_range_miss() && rule.range_miss == RangeMiss::Whole {
            self.portion = Portion::Whole;
        }
    }

    /// Nothing is fetched for it: it is answered from what is there, or passed on.
    pub(crate) fn is_passed_on(&self, rule: &CacheRuleView) -> bool {
        self.portion == Portion::Several || (self.is_range_miss() && rule.range_miss == RangeMiss::Pass)
    }

    fn is_range_miss(&self) -> bool {
        self.found.is_none() && matches!(self.portion, Portion::Part { .. })
    }

    /// The same request, once it is known that `object`, which lies in chunks, may answer it.
    pub(crate) fn of_chunks(&self, object: &Arc<Object>) -> Self {
        let (object, purge, reuse) = (object.clone(), Freshened::Untouched, Reuse::Fresh);
        Self {
            key: self.key,
            text: self.text.clone(),
            alias: self.alias.clone(),
            wishes: self.wishes,
            signs: self.signs,
            found: Some(Found { object, purge, reuse, cut: None }),
            portion: self.portion.clone(),
            why: self.why,
            selectors: self.selectors.clone(),
            is_counted: true,
        }
    }

    /// What a fill for this request, which has come as far as `hop`, is for.
    pub(crate) fn errand<'a>(&'a self, selecting: &'a Selecting, hop: Hop) -> Errand<'a> {
        Errand { text: &self.text, alias: self.alias.as_ref(), selecting, portion: &self.portion, hop }
    }

    /// Nothing that others wait for will do: it insists on asking the origin, or goes through chunks at its own pace.
    pub(crate) fn goes_alone(&self) -> bool {
        self.insists_on_origin() || self.reads_chunks()
    }

    /// Whoever insists on asking the origin asks for himself: another request's answer will not do. Neither will it where
    /// purges may be missing: that answer may have begun before one.
    fn insists_on_origin(&self) -> bool {
        self.found.as_ref().is_some_and(|found| {
            matches!(found.reuse, Reuse::ValidateOnRequest | Reuse::Unverified)
                || found.object.terms.always_validate
        })
    }
}

/// A response that several requests wait for is one that this request may have.
pub(crate) fn may_share(cache: &Cache, probe: &Probe, head: &FillHead) -> bool {
    // Of what it is tagged with nobody knew when it was joined: a purge of that may have come between its beginning and
    // this request.
    let subject = Subject {
        key: probe.key,
        text: &probe.text,
        tags: &head.tags,
        fill_seq: head.fill_seq,
        checked_seq: head.checked_seq,
    };
    if cache.purges.check_subject(&subject) != Some(Freshened::Untouched) {
        return false;
    }
    let is_for = |alias: &Alias| alias.is_served_by(&probe.text, &head.fields);
    head.is_shareable
        && probe.alias.as_ref().is_none_or(is_for)
        && (!probe.signs.is_authorized || head.terms.answers_authorized)
}

/// An object that the origin was asked about for another request may answer this one too: it is fresh, or it is the one
/// this request had found, and the origin failed.
pub(crate) fn may_use(cache: &Cache, probe: &Probe, object: &Arc<Object>, now_ms: u64) -> bool {
    let alias = probe.alias.as_ref();
    let Some(purge) = cache.purges.check_for(object, alias) else { return false };
    // It may have been found before the resource changed, by a request that came before this one.
    if cache.changed_since(object.key, object.terms.response_ms) {
        return false;
    }
    if !alias.is_none_or(|alias| alias.is_answered_by(object)) {
        return false;
    }
    let is_known = probe.found.as_ref().is_some_and(|found| Arc::ptr_eq(&found.object, object));
    is_known
        || (purge == Freshened::Untouched
            && object.terms.is_fresh(now_ms)
            && (!probe.signs.is_authorized || object.terms.answers_authorized))
}
