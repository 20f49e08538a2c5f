//! W3C trace context: `traceparent` read strictly and written anew, `tracestate` kept beside a valid one.

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// What is known of the flags: sampled, random trace id. A trace that begins here is both.
const KNOWN_FLAGS: u8 = 3;
const SAMPLED: u8 = 1;

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of the whole trace.
    pub trace_id: u128,
    /// Of this node's part: the parent of what the endpoint does.
    pub span_id: u64,
    /// Who called; `None` = the trace begins here.
    pub parent_id: Option<u64>,
    /// What else `traceparent` says, as far as it is known.
    pub flags: u8,
}

impl Span {
    /// Whoever began the trace wants it recorded (Trace Context §3.2.2.5.1).
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Makes `span_id`, which belongs to this span, the parent of whatever is done for the request with `fields`.
    pub fn enter_child(&self, span_id: u64, fields: &mut HeaderMap) {
        let Self { trace_id, flags, .. } = self;
        // Only hexadecimal digits and dashes: it is a field value.
        if let Ok(value) = HeaderValue::try_from(format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}")) {
            fields.insert(TRACEPARENT, value);
        }
    }
}

/// Reads the trace of a request and puts this node's part of it into `fields`. Without a valid `traceparent` a trace is
/// begun if `begins`, and what there was of one is removed.
pub fn enter_trace(fields: &mut HeaderMap, begins: bool, mut entropy: impl FnMut() -> u64) -> Option<Span> {
    let span_id = entropy().max(1);
    let span = match parent(fields) {
        Some((trace_id, parent_id, flags)) => Span { trace_id, span_id, parent_id: Some(parent_id), flags },
        None => {
            fields.remove(TRACEPARENT);
            fields.remove(TRACESTATE);
            if !begins {
                return None;
            }
            let trace_id = (u128::from(entropy()) << 64 | u128::from(entropy())).max(1);
            Span { trace_id, span_id, parent_id: None, flags: KNOWN_FLAGS }
        }
    };
    span.enter_child(span_id, fields);
    Some(span)
}

fn parent(fields: &HeaderMap) -> Option<(u128, u64, u8)> {
    let mut values = fields.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    parse(value.as_bytes())
}

/// Trace id, parent id, flags. Later versions may say more behind a dash (Trace Context §2.2.1, §4.3).
fn parse(text: &[u8]) -> Option<(u128, u64, u8)> {
    if text.len() < LENGTH || [2, 35, 52].iter().any(|place| text[*place] != b'-') {
        return None;
    }
    let version = hex(&text[..2])?;
    let fits = match version {
        0 => text.len() == LENGTH,
        0xff => false,
        _ => text.len() == LENGTH || text[LENGTH] == b'-',
    };
    let trace_id = hex(&text[3..35])?;
    let parent_id = u64::try_from(hex(&text[36..52])?).ok()?;
    let flags = u8::try_from(hex(&text[53..55])?).ok()?;
    (fits && trace_id != 0 && parent_id != 0).then_some((trace_id, parent_id, flags & KNOWN_FLAGS))
}

/// Lower case only.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    #[test]
    fn only_what_the_standard_allows_is_a_parent() {
        let check = |text: String, flags: Option<u8>| {
            let expected =
                flags.map(|flags| (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, flags));
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        };
        check(format!("00-{TRACE}-{PARENT}-01"), Some(1));
        check(format!("00-{TRACE}-{PARENT}-00"), Some(0));
        check(format!("00-{TRACE}-{PARENT}-ff"), Some(3));
        check(format!("cc-{TRACE}-{PARENT}-01-more"), Some(1));
        check(format!("cc-{TRACE}-{PARENT}-01"), Some(1));
        check(format!("cc-{TRACE}-{PARENT}-01.more"), None);
        check(format!("00-{TRACE}-{PARENT}-01-more"), None);
        check(format!("ff-{TRACE}-{PARENT}-01"), None);
        check(format!("00-{}-{PARENT}-01", "0".repeat(32)), None);
        check(format!("00-{TRACE}-{}-01", "0".repeat(16)), None);
        check(format!("00-{}-{PARENT}-01", TRACE.to_uppercase()), None);
        check(format!("00-{TRACE}-{PARENT}-0"), None);
        check(format!("00-{TRACE}-{PARENT}_01"), None);
        check(format!("0x-{TRACE}-{PARENT}-01"), None);
        check(String::new(), None);
    }

    #[test]
    fn a_trace_goes_on_begins_or_is_dropped() {
        let valid = format!("00-{TRACE}-{PARENT}-01");
        let check = |given: &[&str], begins: bool, expected: Option<&str>, keeps_state: bool| {
            let mut fields = HeaderMap::new();
            for value in given {
                fields.append(TRACEPARENT, value.parse().unwrap());
            }
            fields.insert(TRACESTATE, HeaderValue::from_static("a=1"));
            let span = enter_trace(&mut fields, begins, || 0x11);
            let sent: Vec<_> = fields.get_all(TRACEPARENT).iter().collect();
            assert_eq!(sent, expected.into_iter().collect::<Vec<_>>(), "{given:?}");
            assert_eq!(fields.contains_key(TRACESTATE), keeps_state, "{given:?}");
            assert_eq!(span.is_some(), expected.is_some());
            let says_sampled = expected.is_some_and(|sent| !sent.ends_with('0'));
            assert_eq!(span.is_some_and(|span| span.is_sampled()), says_sampled);
        };
        let goes_on = format!("00-{TRACE}-0000000000000011-01");
        let begun = "00-00000000000000110000000000000011-0000000000000011-03";
        check(&[&valid], false, Some(&goes_on), true);
        check(&[&valid], true, Some(&goes_on), true);
        let unsampled = |id: &str| format!("00-{TRACE}-{id}-00");
        check(&[&unsampled(PARENT)], true, Some(&unsampled("0000000000000011")), true);
        check(&[], true, Some(begun), false);
        check(&[], false, None, false);
        check(&["nonsense"], false, None, false);
        check(&[&valid, &valid], true, Some(begun), false);
    }
}
