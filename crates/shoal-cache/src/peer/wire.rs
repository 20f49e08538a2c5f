//! The fields by which nodes speak of objects over HTTP/1.1. They never leave the cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::selecting::{Selecting, Selector};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::targeted::SHOAL_CACHE_CONTROL;
use shoal_policy::failure::Failure;

use crate::conditions::{Conditions, NAMES};

/// Marks a request of a peer, and says how far it has come: who may still be asked.
pub(crate) static HOP: HeaderName = HeaderName::from_static("shoal-hop");
/// The text of the object's key.
pub(crate) static URL: HeaderName = HeaderName::from_static("shoal-url");
/// The name of the route.
pub(crate) static ROUTE: HeaderName = HeaderName::from_static("shoal-route");
/// The log index below which an answer is worthless.
pub(crate) static MIN_SEQ: HeaderName = HeaderName::from_static("shoal-min-seq");
/// The sender's placement.
pub(crate) static VIEW: HeaderName = HeaderName::from_static("shoal-view");
/// Do not ask the origin.
pub(crate) static PEEK: HeaderName = HeaderName::from_static("shoal-only-if-cached");
/// The primary cannot be reached: fill in its place.
pub(crate) static PRIMARY_DOWN: HeaderName = HeaderName::from_static("shoal-primary-down");
/// The method of the request that a question is for. Where the fields of an object answer that, whoever says so takes them
/// alone, with [`IN_CHUNKS`] and without a body; and several parts where it asks for those.
pub(crate) static METHOD: HeaderName = HeaderName::from_static("shoal-method");
/// What else there is of its [`Conditions`], each by this name.
static CONDITIONS: [HeaderName; 4] = [
    HeaderName::from_static("shoal-if-none-match"),
    HeaderName::from_static("shoal-if-modified-since"),
    HeaderName::from_static("shoal-range"),
    HeaderName::from_static("shoal-if-range"),
];
/// What kind of answer it is: see [`AnswerKind`].
pub(crate) static ANSWER: HeaderName = HeaderName::from_static("shoal-answer");
/// Numbers of an object.
pub(crate) static META: HeaderName = HeaderName::from_static("shoal-meta");
/// Scopes of an object's tags.
pub(crate) static TAGS: HeaderName = HeaderName::from_static("shoal-tags");
/// The status of a replica's response.
pub(crate) static STATUS: HeaderName = HeaderName::from_static("shoal-status");
/// Selecting fields of an object.
pub(crate) static SELECT: HeaderName = HeaderName::from_static("shoal-select");
/// The peer's own `Cache-Status` member.
pub(crate) static MEMBER: HeaderName = HeaderName::from_static("shoal-member");
/// The object is in much use: keep it for so long, milliseconds.
pub(crate) static HOT: HeaderName = HeaderName::from_static("shoal-hot");
/// Why the origin's response is not stored: see [`Refusal::word`].
pub(crate) static REFUSAL: HeaderName = HeaderName::from_static("shoal-refusal");
/// Why there is no answer.
pub(crate) static FAILURE: HeaderName = HeaderName::from_static("shoal-failure");

/// The clock of whoever refused a replica that may be older than a change, Unix milliseconds.
pub(crate) static CLOCK: HeaderName = HeaderName::from_static("shoal-clock");
/// When the response in a replica was received, at the earliest, by the clock of who takes it, Unix milliseconds.
pub(crate) static RECEIVED: HeaderName = HeaderName::from_static("shoal-received");

/// How the body of a replica lies in chunks, or that of an object whose fields are the answer: see [`InChunks`].
pub(crate) static IN_CHUNKS: HeaderName = HeaderName::from_static("shoal-in-chunks");

/// Where replicas are put.
pub(crate) const REPLICA_PATH: &str = "/shoal/replica";
/// Where replicas of chunks are put, and of the objects that have them: whoever does not know chunks does not know it.
pub(crate) const CHUNK_PATH: &str = "/shoal/chunk";

/// How long to wait for the log to reach what the sender has applied.
pub(super) const BEHIND_WAIT: Duration = Duration::from_millis(20);

const PREFIX: &str = "shoal-";
/// So many of them are written at most beside those of an object.
pub(crate) const OWN_FIELDS: usize = 7;
/// Every failure a peer's fill may report.
const FAILURES: [Failure; 12] = [
    Failure::UpstreamConnectFailed,
    Failure::UpstreamConnectTimeout,
    Failure::UpstreamReset,
    Failure::UpstreamProtocol,
    Failure::UpstreamResponseTimeout,
    Failure::NoEndpoint,
    Failure::Overflow,
    Failure::Overload,
    Failure::Draining,
    Failure::Loop,
    Failure::Unverified,
    Failure::Internal,
];

/// What a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// An object of its store.
    Hit,
    /// An object on its way in.
    Filling,
    /// The origin's response, for this request alone.
    Own,
    /// It is not cacheable: ask the origin yourself, and do not come back soon.
    Direct,
    /// This one is not to be shared: ask the origin yourself, this time.
    Alone,
    /// It does not hold it.
    Miss,
    /// It has not applied what the sender has.
    Behind,
    /// The origin failed.
    Failed,
}

impl AnswerKind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Hit, "hit"),
        (Self::Filling, "filling"),
        (Self::Own, "own"),
        (Self::Direct, "direct"),
        (Self::Alone, "alone"),
        (Self::Miss, "miss"),
        (Self::Behind, "behind"),
        (Self::Failed, "failed"),
    ];

    pub(crate) fn read(fields: &HeaderMap) -> Option<Self> {
        let text = fields.get(&ANSWER)?.as_bytes();
        Self::ALL.iter().find(|(_, name)| name.as_bytes() == text).map(|(kind, _)| *kind)
    }

    /// The peer answered from what it has, without asking anybody.
    pub(crate) const fn is_of_its_own(self) -> bool {
        match self {
            Self::Hit | Self::Direct | Self::Miss => true,
            Self::Filling | Self::Own | Self::Alone | Self::Behind | Self::Failed => false,
        }
    }

    pub(crate) fn value(self) -> HeaderValue {
        let name = Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("failed", |(_, name)| name);
        HeaderValue::from_static(name)
    }
}

/// Takes every field off that nodes write for each other. What an origin says to our caches is a part of the object.
pub(crate) fn remove_own_fields(fields: &mut HeaderMap) {
    let is_own = |name: &&HeaderName| name.as_str().starts_with(PREFIX) && **name != SHOAL_CACHE_CONTROL;
    let own: Vec<HeaderName> = fields.keys().filter(is_own).cloned().collect();
    for name in own {
        fields.remove(name);
    }
}

/// A number in a field.
pub(crate) fn read_number(fields: &HeaderMap, name: &HeaderName) -> Option<u64> {
    fields.get(name)?.to_str().ok()?.parse().ok()
}

/// A text in a field.
pub(crate) fn read_text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

/// What an object's fields do not say.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) terms: Terms,
    pub(crate) tags: Box<[u64]>,
    pub(crate) fill_seq: u64,
    pub(crate) checked_seq: u64,
}

impl Meta {
    /// Of a stored object.
    pub(crate) fn of(terms: Terms, tags: &[u64], fill_seq: u64, checked_seq: &AtomicU64) -> Self {
        Self { terms, tags: tags.into(), fill_seq, checked_seq: checked_seq.load(Ordering::Relaxed) }
    }

    /// Times travel as durations: clocks of nodes differ.
    pub(crate) fn write(&self, fields: &mut HeaderMap, now_ms: u64) {
        let terms = &self.terms;
        let flags = u8::from(terms.always_validate)
            | u8::from(terms.forbids_stale) << 1
            | u8::from(terms.answers_authorized) << 2;
        let text = format!(
            "{} {} {} {} {} {} {} {} {flags}",
            self.fill_seq,
            self.checked_seq,
            terms.lifetime_ms,
            terms.initial_age_ms,
            now_ms.saturating_sub(terms.response_ms),
            terms.date,
            terms.stale_while_revalidate_ms,
            terms.stale_if_error_ms,
        );
        insert(fields, &META, text);
        if !self.tags.is_empty() {
            let tags: Vec<String> = self.tags.iter().map(|tag| format!("{tag:x}")).collect();
            insert(fields, &TAGS, tags.join(" "));
        }
    }

    pub(crate) fn read(fields: &HeaderMap, now_ms: u64) -> Option<Self> {
        let mut numbers = read_text(fields, &META)?.split(' ').map(|word| word.parse::<u64>().ok());
        let mut number = || numbers.next().flatten();
        let (fill_seq, checked_seq) = (number()?, number()?);
        let (lifetime_ms, initial_age_ms, resident_ms) = (number()?, number()?, number()?);
        let (date, stale_while_revalidate_ms, stale_if_error_ms, flags) =
            (number()?, number()?, number()?, number()?);
        let tags = read_text(fields, &TAGS).unwrap_or("").split_ascii_whitespace();
        let tags: Option<Vec<u64>> = tags.map(|tag| u64::from_str_radix(tag, 16).ok()).collect();
        let terms = Terms {
            lifetime_ms,
            initial_age_ms,
            response_ms: now_ms.saturating_sub(resident_ms),
            fetch_ms: 0,
            date,
            always_validate: flags & 1 != 0,
            forbids_stale: flags & 2 != 0,
            stale_while_revalidate_ms,
            stale_if_error_ms,
            answers_authorized: flags & 4 != 0,
        };
        Some(Self { terms, tags: tags?.into(), fill_seq, checked_seq })
    }
}

/// What a replica, or an answer of fields alone, says of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InChunks {
    /// Of the whole body, bytes.
    pub(crate) length: u64,
    /// The chunk that the replica carries; `None` = it says what there is to know of the object.
    pub(crate) number: Option<u64>,
}

impl InChunks {
    pub(crate) fn write(self, fields: &mut HeaderMap) {
        let text = match self.number {
            Some(number) => format!("{} {number}", self.length),
            None => self.length.to_string(),
        };
        insert(fields, &IN_CHUNKS, text);
    }

    pub(crate) fn read(fields: &HeaderMap) -> Option<Self> {
        let text = read_text(fields, &IN_CHUNKS)?;
        match text.split_once(' ') {
            Some((length, number)) => {
                Some(Self { length: length.parse().ok()?, number: Some(number.parse().ok()?) })
            }
            None => Some(Self { length: text.parse().ok()?, number: None }),
        }
    }
}

pub(crate) fn write_conditions(conditions: &Conditions, fields: &mut HeaderMap) {
    insert(fields, &METHOD, conditions.method.to_string());
    for (name, written) in NAMES.iter().zip(&CONDITIONS) {
        for value in conditions.fields.get_all(name) {
            fields.append(written.clone(), value.clone());
        }
    }
}

/// `None` = whoever asks wants bytes, or does not know better.
pub(crate) fn read_conditions(fields: &HeaderMap) -> Option<Conditions> {
    let method = read_text(fields, &METHOD)?;
    let method = [Method::GET, Method::HEAD].into_iter().find(|known| known.as_str() == method)?;
    let mut conditions = Conditions { method, fields: HeaderMap::new() };
    for (name, written) in NAMES.iter().zip(&CONDITIONS) {
        for value in fields.get_all(written) {
            conditions.fields.append(name.clone(), value.clone());
        }
    }
    Some(conditions)
}

/// One line per selector: its text, or that and the value in Base64.
pub(crate) fn write_selecting(selecting: &Selecting, fields: &mut HeaderMap) {
    for (selector, value) in selecting.parts() {
        let text = match value {
            Some(value) => format!("{selector} {}", STANDARD_NO_PAD.encode(value)),
            None => selector.to_string(),
        };
        if let Ok(line) = HeaderValue::try_from(text) {
            fields.append(SELECT.clone(), line);
        }
    }
}

pub(crate) fn read_selecting(fields: &HeaderMap) -> Option<Selecting> {
    let part = |line: &HeaderValue| {
        let line = line.to_str().ok()?;
        let (text, value) = line.split_once(' ').map_or((line, None), |(text, value)| (text, Some(value)));
        let value = match value {
            Some(value) => Some(STANDARD_NO_PAD.decode(value).ok()?),
            None => None,
        };
        Some((Selector::parse(text)?, value))
    };
    let parts: Option<Vec<_>> = fields.get_all(&SELECT).iter().map(part).collect();
    Some(Selecting::from_parts(parts?.into_iter()))
}

pub(crate) fn write_failure(failure: Failure, fields: &mut HeaderMap) {
    fields.insert(FAILURE.clone(), HeaderValue::from_static(failure.reason()));
}

pub(crate) fn read_failure(fields: &HeaderMap) -> Failure {
    let reason = read_text(fields, &FAILURE).unwrap_or("");
    FAILURES.into_iter().find(|failure| failure.reason() == reason).unwrap_or(Failure::Internal)
}

pub(crate) fn write_refusal(refusal: Refusal, fields: &mut HeaderMap) {
    fields.insert(REFUSAL.clone(), HeaderValue::from_static(refusal.word()));
}

/// `None` = it was not told, or by a word of a later version.
pub(crate) fn read_refusal(fields: &HeaderMap) -> Option<Refusal> {
    Refusal::of_word(read_text(fields, &REFUSAL)?)
}

/// Puts `text` into a field; what no field can hold is left out, and the other side refuses what lacks it.
pub(crate) fn insert(fields: &mut HeaderMap, name: &HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT_LANGUAGE;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let terms = Terms {
            lifetime_ms: 60_000,
            initial_age_ms: 1_500,
            response_ms: 90_000,
            fetch_ms: 0,
            date: 88,
            always_validate: false,
            forbids_stale: true,
            stale_while_revalidate_ms: 7,
            stale_if_error_ms: 8,
            answers_authorized: true,
        };
        let meta = Meta { terms, tags: [1, u64::MAX].into(), fill_seq: 5, checked_seq: 9 };
        let mut fields = HeaderMap::new();
        meta.write(&mut fields, 100_000);
        let request = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static("de, en"))]);
        let selecting = Selecting::of(&[ACCEPT_LANGUAGE.into(), http::header::ACCEPT.into()], &request);
        write_selecting(&selecting, &mut fields);
        write_failure(Failure::UpstreamReset, &mut fields);
        write_refusal(Refusal::SetCookie, &mut fields);
        let asked = HeaderMap::from_iter([
            (NAMES[0].clone(), HeaderValue::from_static("\"1\"")),
            (NAMES[0].clone(), HeaderValue::from_static("\"2\"")),
            (NAMES[2].clone(), HeaderValue::from_static("bytes=5-")),
        ]);
        let conditions = Conditions { method: Method::HEAD, fields: asked };
        write_conditions(&conditions, &mut fields);
        assert_eq!(read_conditions(&fields), Some(conditions));
        for number in [None, Some(0), Some(u64::MAX)] {
            let in_chunks = InChunks { length: u64::MAX, number };
            in_chunks.write(&mut fields);
            assert_eq!(InChunks::read(&fields), Some(in_chunks));
        }
        for wrong in ["", " ", "7 ", " 7", "7 8 9", "-1", "7  8", "18446744073709551616"] {
            insert(&mut fields, &IN_CHUNKS, wrong.to_owned());
            assert_eq!(InChunks::read(&fields), None, "{wrong:?}");
        }

        // The other node's clock is an hour ahead.
        let read = Meta::read(&fields, 3_700_000).unwrap();
        assert_eq!(read.terms, Terms { response_ms: 3_690_000, ..terms });
        assert_eq!((read.fill_seq, read.checked_seq, &*read.tags), (5, 9, &[1, u64::MAX][..]));
        assert_eq!(read_selecting(&fields), Some(selecting));
        assert_eq!(read_failure(&fields), Failure::UpstreamReset);
        assert_eq!(read_refusal(&fields), Some(Refusal::SetCookie));
        insert(&mut fields, &REFUSAL, "unheard-of".to_owned());
        assert_eq!(read_refusal(&fields), None);
        remove_own_fields(&mut fields);
        assert!(fields.is_empty());
        assert!(Meta::read(&fields, 0).is_none());
    }
}
