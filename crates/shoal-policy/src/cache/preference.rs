//! Which of several stored responses that a request chooses is best (RFC 9111 §4.1).

use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, HeaderMap, HeaderName,
};

use super::fields::Fields;
use super::selecting::Selecting;

/// A weight of 1, in thousandths.
const MOST: u16 = 1000;

/// A stored response, as far as choosing goes.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a, F> {
    /// What chooses it.
    pub selecting: &'a Selecting,
    /// Its fields.
    pub fields: &'a F,
    /// When it was generated, Unix seconds.
    pub date: u64,
    /// When it was received, Unix milliseconds.
    pub response_ms: u64,
}

/// The place of the response to use for `request`, of those stored for its URL: the one it prefers, then the most recent.
/// Where some have `Vary`, those without it do not say what they were made for, and are none (§4.1).
pub fn choose<F: Fields>(request: &HeaderMap, candidates: &[Candidate<'_, F>]) -> Option<usize> {
    let varies = candidates.iter().any(|candidate| !candidate.selecting.is_empty());
    let fits = |candidate: &Candidate<'_, F>| {
        (!varies || !candidate.selecting.is_empty()) && candidate.selecting.matches(request)
    };
    let fitting = candidates.iter().enumerate().filter(|(_, candidate)| fits(candidate));
    fitting.max_by_key(|(_, candidate)| candidate.rank(request)).map(|(place, _)| place)
}

/// How well a stored response suits a request: language, coding, date, time of receipt.
type Rank = (u16, u16, u64, u64);

impl<F: Fields> Candidate<'_, F> {
    /// What the request prefers counts only where the response was chosen by it.
    fn rank(&self, request: &HeaderMap) -> Rank {
        let weight = |asked: &HeaderName, given: &HeaderName, closeness: Closeness| {
            if !self.selecting.includes(asked) {
                return MOST;
            }
            preference(request, asked, self.fields, given, closeness)
        };
        let language = weight(&ACCEPT_LANGUAGE, &CONTENT_LANGUAGE, language_match);
        let coding = weight(&ACCEPT_ENCODING, &CONTENT_ENCODING, coding_match);
        (language, coding, self.date, self.response_ms)
    }
}

/// How well a range of a request fits something.
type Closeness = fn(&str, &str) -> Option<u8>;

/// The weight that the request gives to the best of what the response is in: the closest of its ranges has the word.
fn preference(
    request: &HeaderMap,
    asked: &HeaderName,
    fields: &impl Fields,
    given: &HeaderName,
    closeness: Closeness,
) -> u16 {
    let given: Vec<String> = members(fields, given).map(|member| member.to_ascii_lowercase()).collect();
    // What says nothing of itself is as good as anything.
    let of_one = |tag: &String| {
        let ranges = members(request, asked).map(weighted);
        let fitting = ranges.filter_map(|(range, weight)| Some((closeness(&range, tag)?, weight)));
        fitting.max_by_key(|(closeness, _)| *closeness).map_or(0, |(_, weight)| weight)
    };
    given.iter().map(of_one).max().unwrap_or(MOST)
}

fn members<'a>(fields: &'a impl Fields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = fields.lines_of(name).filter_map(|line| std::str::from_utf8(line).ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// RFC 4647 §3.3.1: a range fits what begins with it, by whole subtags.
fn language_match(range: &str, tag: &str) -> Option<u8> {
    if range == "*" {
        return Some(0);
    }
    let rest = tag.strip_prefix(range)?;
    (rest.is_empty() || rest.starts_with('-')).then(|| u8::try_from(range.len()).unwrap_or(u8::MAX))
}

fn coding_match(range: &str, coding: &str) -> Option<u8> {
    match range {
        "*" => Some(0),
        _ => (range == coding).then_some(1),
    }
}

/// A member and its weight, in thousandths; one that cannot be read is 1 (RFC 9110 §12.4.2).
fn weighted(member: &str) -> (String, u16) {
    let mut parts = member.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))
    });
    (range, weight.flatten().unwrap_or(MOST))
}

fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 1 || fraction.len() > 3 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let sum = whole.parse::<u16>().ok()? * MOST + format!("{fraction:0<3}").parse::<u16>().ok()?;
    Some(sum.min(MOST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(asked: HeaderName, request: &'static str, given: HeaderName, response: &str, expected: u16) {
        let one = |name: &HeaderName, value: &str| {
            HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(value).unwrap())])
        };
        let closeness: Closeness = if asked == ACCEPT_LANGUAGE { language_match } else { coding_match };
        let fields = if response.is_empty() { HeaderMap::new() } else { one(&given, response) };
        let weight = preference(&one(&asked, request), &asked, &fields, &given, closeness);
        assert_eq!(weight, expected, "{request:?} {response:?}");
    }

    #[test]
    fn the_closest_range_weighs_a_language() {
        for (response, expected) in [
            ("de-AT", 900),
            ("de", 500),
            ("de-CH-1996", 500),
            ("deutsch", 100),
            ("fr", 1000),
            ("en", 0),
            ("en, fr", 1000),
            ("", 1000),
        ] {
            let request = "FR, de;q=0.5, de-at; q=0.9, *;q=0.1, en;q=0";
            check(ACCEPT_LANGUAGE, request, CONTENT_LANGUAGE, response, expected);
        }
        check(ACCEPT_LANGUAGE, "de", CONTENT_LANGUAGE, "en", 0);
    }

    #[test]
    fn codings_are_weighed_by_name() {
        for (response, expected) in [("br", 800), ("gzip", 1000), ("zstd", 1), ("", 1000)] {
            let request = "gzip;q=1.000, br;q=0.8, *;q=0.001";
            check(ACCEPT_ENCODING, request, CONTENT_ENCODING, response, expected);
        }
        check(ACCEPT_ENCODING, "br;q=.8", CONTENT_ENCODING, "br", 1000);
    }
}
