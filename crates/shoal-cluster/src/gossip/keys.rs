//! The keys a node gossips of itself, and how they are read from others.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use shoal_model::UpstreamId;
use shoal_policy::health::{SHARDS, Shard};
use shoal_policy::readiness::{Ready, ReadyIn};

use crate::view::NodeState;

pub(super) const NAME: &str = "name";
pub(super) const ADMIN: &str = "admin";
pub(super) const REGION: &str = "region";
pub(super) const ZONE: &str = "zone";
pub(super) const STATE: &str = "state";
pub(super) const LOAD: &str = "load";
pub(super) const OFFERED: &str = "offered";
pub(super) const REVISION: &str = "revision";
pub(super) const APPLIED: &str = "applied";
pub(super) const CHECKED: &str = "checked";
pub(super) const COMMANDS: &str = "commands";
pub(super) const STATE_HASH: &str = "state-hash";
pub(super) const VERSION: &str = "version";
pub(super) const READY: &str = "ready";
pub(super) const PUBLIC: &str = "public";
/// Whom this node misses; empty = nobody. A version that does not say so has no such key.
pub(super) const MISSED: &str = "missed";
pub(super) const HEALTH_VIEW: &str = "h/view";
pub(super) const HEALTH_SHARDS: [&str; SHARDS] = ["h/0", "h/1", "h/2", "h/3", "h/4", "h/5", "h/6", "h/7"];

/// Longest name, address or version that is believed, bytes.
const MAX_TEXT: usize = 256;

/// Most upstreams whose rate is told, so that the value stays below 1 KB.
const MAX_OFFERS: usize = 32;

/// Most public addresses of a node.
pub const MAX_PUBLIC_ADDRESSES: usize = 8;

/// What this node says of itself.
pub(super) type OwnKeys = BTreeMap<&'static str, String>;

/// Text of another node, cut to a sane length.
pub(super) fn text(value: Option<&str>) -> &str {
    let value = value.unwrap_or_default();
    &value[..value.floor_char_boundary(MAX_TEXT)]
}

pub(super) fn number<T: std::str::FromStr + Default>(value: Option<&str>) -> T {
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

pub(super) const fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Ready => "ready",
        NodeState::Cordoned => "cordoned",
        NodeState::Draining => "draining",
        NodeState::Left => "left",
    }
}

/// A state of a later version is one in which a node owns nothing.
pub(super) fn state(value: Option<&str>) -> NodeState {
    match value {
        Some("ready") => NodeState::Ready,
        Some("cordoned") => NodeState::Cordoned,
        Some("draining") => NodeState::Draining,
        Some("left") => NodeState::Left,
        Some(_) | None => NodeState::Joining,
    }
}

/// Requests in flight, three significant bits: the key must not change with every request.
pub(super) const fn coarse(load: u32) -> u32 {
    significant(3, load)
}

/// The first `kept` bits of a number.
const fn significant(kept: u32, number: u32) -> u32 {
    let bits = u32::BITS - number.leading_zeros();
    if bits <= kept { number } else { (number >> (bits - kept)) << (bits - kept) }
}

/// `offered`: requests a second by upstream, the busiest first, with five significant bits: `16 hex digits=rate`, by
/// commas.
pub(super) fn encode_offers(offers: impl IntoIterator<Item = (UpstreamId, u32)>) -> String {
    let mut offers: Vec<_> = offers.into_iter().filter(|(_, rate)| *rate > 0).collect();
    offers.sort_unstable_by_key(|&(upstream, rate)| (Reverse(rate), upstream));
    offers.truncate(MAX_OFFERS);
    let mut text = String::new();
    for (upstream, rate) in offers {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{:016x}={}", upstream.0, significant(5, rate));
    }
    text
}

/// Reads `offered`; what makes no sense is left out.
pub(super) fn offers(value: Option<&str>) -> Arc<[(UpstreamId, u32)]> {
    let read = |part: &str| {
        let (upstream, rate) = part.split_once('=')?;
        Some((UpstreamId(u64::from_str_radix(upstream, 16).ok()?), rate.parse().ok()?))
    };
    value.unwrap_or_default().split(',').take(MAX_OFFERS).filter_map(read).collect()
}

/// `public`: addresses, by commas.
pub(super) fn encode_addresses(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().take(MAX_PUBLIC_ADDRESSES).map(ToString::to_string).collect();
    texts.join(",")
}

/// Reads `public`; what is no address is left out.
pub(super) fn addresses(value: Option<&str>) -> Arc<[IpAddr]> {
    let words = value.unwrap_or_default().split(',').take(MAX_PUBLIC_ADDRESSES);
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Reads `ready`. A version that does not say it is as ready as its state.
pub(super) fn ready(value: Option<&str>) -> ReadyIn {
    value.map_or(ReadyIn::all(Ready::Yes), ReadyIn::read)
}

/// `h/view`: the placement the author has checked all its endpoints under, and a beat that shows it still checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HealthView {
    /// `None` = it has not come round yet.
    pub(super) checked_through: Option<u64>,
    pub(super) beat: u64,
}

impl HealthView {
    pub(super) fn encode(self) -> String {
        let mut text = String::new();
        if let Some(placement_id) = self.checked_through {
            let written = write!(text, "{placement_id:016x}");
            written.expect("writing to a string does not fail");
        }
        text.push('.');
        text.push_str(&self.beat.to_string());
        text
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let (checked_through, beat) = text.split_once('.')?;
        let checked_through = match checked_through {
            "" => None,
            hex => Some(u64::from_str_radix(hex, 16).ok()?),
        };
        Some(Self { checked_through, beat: beat.parse().ok()? })
    }
}

/// All shards of an author; `None` = one that cannot be read, of which nothing follows.
pub(super) fn shards<'a>(value: impl Fn(&str) -> Option<&'a str>) -> [Option<Shard>; SHARDS] {
    HEALTH_SHARDS.map(|key| Shard::decode(value(key).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_views_are_read_back() {
        let check = |checked_through, beat, expected: &str| {
            let view = HealthView { checked_through, beat };
            assert_eq!(view.encode(), expected);
            assert_eq!(HealthView::decode(expected), Some(view));
        };
        check(None, 0, ".0");
        check(Some(0xab), 7, "00000000000000ab.7");
        for garbage in ["", "x.1", "1", "1.", "1.x"] {
            assert_eq!(HealthView::decode(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn offers_are_read_as_they_were_written() {
        let offers_of = |rates: &[(u64, u32)]| -> Vec<_> {
            rates.iter().map(|&(upstream, rate)| (UpstreamId(upstream), rate)).collect()
        };
        let check = |said: &[(u64, u32)], text: &str, heard: &[(u64, u32)]| {
            assert_eq!(encode_offers(offers_of(said)), text);
            assert_eq!(*offers(Some(text)), *offers_of(heard), "{text}");
        };
        check(&[], "", &[]);
        check(&[(1, 0)], "", &[]);
        check(
            &[(1, 30), (0xabc, 1801)],
            "0000000000000abc=1792,0000000000000001=30",
            &[(0xabc, 1792), (1, 30)],
        );
        let many: Vec<(u64, u32)> = (0..100).map(|n| (u64::MAX - n, u32::MAX - n as u32)).collect();
        let text = encode_offers(offers_of(&many));
        assert!(text.len() < 1024, "{}", text.len());
        assert_eq!(offers(Some(&text)).len(), MAX_OFFERS);
        for garbage in
            [None, Some(""), Some("="), Some("x=1"), Some("1"), Some("1=-1"), Some("1=99999999999")]
        {
            assert!(offers(garbage).is_empty(), "{garbage:?}");
        }
        assert_eq!(offers(Some(&"1=1,".repeat(500))).len(), MAX_OFFERS);
    }

    #[test]
    fn addresses_are_read_as_they_were_written() {
        let check = |text: &str, expected: &[&str]| {
            let read: Vec<_> = addresses(Some(text)).iter().map(ToString::to_string).collect();
            assert_eq!(read, expected, "{text}");
        };
        let own = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        assert_eq!(encode_addresses(&own), "192.0.2.1,2001:db8::1");
        check("192.0.2.1,2001:db8::1", &["192.0.2.1", "2001:db8::1"]);
        check("", &[]);
        check("x,192.0.2.1,,1", &["192.0.2.1"]);
        check(&"192.0.2.1,".repeat(40), &["192.0.2.1"; MAX_PUBLIC_ADDRESSES]);
        assert!(addresses(None).is_empty());
        assert_eq!(ready(None), ReadyIn::all(Ready::Yes));
        assert_eq!(ready(Some("")), ReadyIn::default());
    }

    #[test]
    fn load_is_coarse() {
        let check = |load, expected| assert_eq!(coarse(load), expected, "{load}");
        check(0, 0);
        check(7, 7);
        check(8, 8);
        check(9, 8);
        check(1000, 896);
        check(u32::MAX, 0xE000_0000);
    }

    #[test]
    fn every_state_is_read_back() {
        use NodeState::{Cordoned, Draining, Joining, Left, Ready};
        for each in [Joining, Ready, Cordoned, Draining, Left] {
            assert_eq!(state(Some(state_name(each))), each);
        }
        assert_eq!(state(Some("levitating")), Joining);
        assert_eq!(state(None), Joining);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(text(Some(&"é".repeat(200))).len(), 256);
        assert_eq!(text(Some(&format!("x{}", "é".repeat(200)))).len(), 255);
        assert_eq!(text(None), "");
    }
}
