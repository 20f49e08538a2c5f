//! Facts as they are gossiped: 14 bytes each, exceptions only, in eight shards of text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shoal_model::EndpointId;

/// Gossip keys `h/0` to `h/7`, so that one change re-sends an eighth.
pub const SHARDS: usize = 8;

/// Facts in one shard; what does not fit is only counted. Keeps a value under 1 KB and a node under 8 KB.
pub const MAX_FACTS_PER_SHARD: usize = 48;

/// Ejections an author tells of; its further ones stay its own.
pub const MAX_EJECTED_FACTS: usize = 64;

/// Bytes of one record: endpoint, state, since, reason.
const RECORD_BYTES: usize = 14;

/// First character of a shard: the format.
const FORMAT: char = '1';

/// What a node says of an endpoint that is not simply healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Of which.
    pub endpoint: EndpointId,
    /// What.
    pub state: FactState,
    /// Unix seconds, by the author's clock: for people, never for decisions.
    pub since: u32,
    /// Why.
    pub reason: Reason,
}

/// What a fact says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FactState {
    /// Its checks fail.
    Down,
    /// Its checks succeed, but not well.
    Degraded,
    /// The author cannot tell.
    Unknown,
    /// The author's own traffic fails there.
    Ejected,
}

impl FactState {
    const fn code(self) -> u8 {
        match self {
            Self::Down => 1,
            Self::Degraded => 2,
            Self::Unknown => 3,
            Self::Ejected => 4,
        }
    }

    /// A code of a later version is "cannot tell".
    const fn of_code(code: u8) -> Self {
        match code {
            1 => Self::Down,
            2 => Self::Degraded,
            4 => Self::Ejected,
            _ => Self::Unknown,
        }
    }

    /// Its name in the operator's tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Ejected => "ejected",
        }
    }
}

/// Why an endpoint is not simply healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// None of the others, or one of a later version.
    Other,
    /// Nothing listens there.
    ConnectRefused,
    /// Connecting took too long.
    ConnectTimeout,
    /// The network says it cannot be reached.
    Unreachable,
    /// Its name does not resolve.
    NameNotResolved,
    /// It closed or reset the connection.
    Reset,
    /// It did not answer in time.
    ResponseTimeout,
    /// Its answer is not HTTP.
    Protocol,
    /// It answered with a status that does not count as success.
    Status,
    /// Gateway errors in a row, seen by traffic.
    GatewayErrors,
    /// Nobody who is believed vouches for its certificate.
    TlsNotTrusted,
    /// Its certificate is not for the name that is asked for.
    TlsWrongName,
    /// Its certificate has none of the keys that are pinned.
    TlsWrongPin,
    /// Its certificate has expired, or is not valid yet.
    TlsExpired,
    /// It speaks TLS, and HTTP/2 was not agreed upon.
    TlsNoHttp2,
    /// The TLS handshake failed in another way.
    TlsHandshake,
}

impl Reason {
    /// Every reason, at the place of its code.
    const ALL: [Self; 16] = [
        Self::Other,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::Unreachable,
        Self::NameNotResolved,
        Self::Reset,
        Self::ResponseTimeout,
        Self::Protocol,
        Self::Status,
        Self::GatewayErrors,
        Self::TlsNotTrusted,
        Self::TlsWrongName,
        Self::TlsWrongPin,
        Self::TlsExpired,
        Self::TlsNoHttp2,
        Self::TlsHandshake,
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().position(|reason| *reason == self).map_or(0, |place| place as u8)
    }

    fn of_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Self::Other)
    }

    /// Its name in the operator's tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::ConnectRefused => "connection refused",
            Self::ConnectTimeout => "connect timeout",
            Self::Unreachable => "unreachable",
            Self::NameNotResolved => "name not resolved",
            Self::Reset => "connection reset",
            Self::ResponseTimeout => "response timeout",
            Self::Protocol => "not http",
            Self::Status => "unexpected status",
            Self::GatewayErrors => "gateway errors",
            Self::TlsNotTrusted => "tls: certificate not trusted",
            Self::TlsWrongName => "tls: wrong name",
            Self::TlsWrongPin => "tls: wrong pin",
            Self::TlsExpired => "tls: certificate out of date",
            Self::TlsNoHttp2 => "tls: http/2 not offered",
            Self::TlsHandshake => "tls: handshake failed",
        }
    }

    /// It answered, and TLS with it did not come about.
    pub const fn is_of_tls(self) -> bool {
        matches!(
            self,
            Self::TlsNotTrusted
                | Self::TlsWrongName
                | Self::TlsWrongPin
                | Self::TlsExpired
                | Self::TlsNoHttp2
                | Self::TlsHandshake
        )
    }
}

/// The shard an endpoint's facts travel in.
pub const fn shard_of(endpoint: EndpointId) -> usize {
    (endpoint.0 % SHARDS as u64) as usize
}

/// One author's facts about an eighth of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// In the order of their endpoints.
    pub facts: Vec<Fact>,
    /// How many more there are that did not fit: the author's silence about others of this shard means nothing.
    pub omitted: u32,
}

impl Shard {
    /// Reads a gossiped value; `None` = not a shard, or one of a later format. An empty value has no facts.
    pub fn decode(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let text = text.strip_prefix(FORMAT)?;
        let (records, omitted) = match text.split_once('+') {
            Some((records, omitted)) => (records, omitted.parse().ok()?),
            None => (text, 0),
        };
        // Three bytes take four characters: longer text cannot be ours, and is not decoded at all.
        if records.len() > (MAX_FACTS_PER_SHARD * RECORD_BYTES).div_ceil(3) * 4 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(records).ok()?;
        let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let facts: Vec<_> = records.iter().map(read_record).collect();
        let sorted = facts.is_sorted_by(|left, right| left.endpoint < right.endpoint);
        sorted.then_some(Self { facts, omitted })
    }

    /// The value to gossip; empty = no facts.
    pub fn encode(&self) -> String {
        if self.facts.is_empty() && self.omitted == 0 {
            return String::new();
        }
        let mut bytes = Vec::with_capacity(self.facts.len() * RECORD_BYTES);
        for fact in &self.facts {
            bytes.extend_from_slice(&fact.endpoint.0.to_be_bytes());
            bytes.push(fact.state.code());
            bytes.extend_from_slice(&fact.since.to_be_bytes());
            bytes.push(fact.reason.code());
        }
        let mut text = String::from(FORMAT);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        if self.omitted > 0 {
            text.push('+');
            text.push_str(&self.omitted.to_string());
        }
        text
    }

    /// What it says of `endpoint`.
    pub fn fact(&self, endpoint: EndpointId) -> Option<&Fact> {
        self.facts.binary_search_by_key(&endpoint, |fact| fact.endpoint).ok().map(|place| &self.facts[place])
    }
}

fn read_record(record: &[u8; RECORD_BYTES]) -> Fact {
    let [e0, e1, e2, e3, e4, e5, e6, e7, state, s0, s1, s2, s3, reason] = *record;
    Fact {
        endpoint: EndpointId(u64::from_be_bytes([e0, e1, e2, e3, e4, e5, e6, e7])),
        state: FactState::of_code(state),
        since: u32::from_be_bytes([s0, s1, s2, s3]),
        reason: Reason::of_code(reason),
    }
}

/// The values of all shards for an author's facts. Of two facts about one endpoint, "down" is kept; a shard that is
/// full keeps what is down and the lowest endpoints, and counts the rest. Ejections beyond [`MAX_EJECTED_FACTS`] are left
/// out: they say nothing about the author's checks.
pub fn encode_shards(facts: impl IntoIterator<Item = Fact>) -> [String; SHARDS] {
    let mut shards: [Vec<Fact>; SHARDS] = Default::default();
    let mut ejected = 0;
    for fact in facts {
        ejected += usize::from(fact.state == FactState::Ejected);
        if fact.state != FactState::Ejected || ejected <= MAX_EJECTED_FACTS {
            shards[shard_of(fact.endpoint)].push(fact);
        }
    }
    shards.map(|mut facts| {
        facts.sort_by_key(|fact| (fact.endpoint, fact.state != FactState::Down));
        facts.dedup_by_key(|fact| fact.endpoint);
        facts.sort_by_key(|fact| (fact.state != FactState::Down, fact.endpoint));
        let omitted = facts.len().saturating_sub(MAX_FACTS_PER_SHARD) as u32;
        facts.truncate(MAX_FACTS_PER_SHARD);
        facts.sort_unstable_by_key(|fact| fact.endpoint);
        Shard { facts, omitted }.encode()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(endpoint: u64) -> Fact {
        let endpoint = EndpointId(endpoint);
        Fact { endpoint, state: FactState::Down, since: 1_700_000_000, reason: Reason::ConnectRefused }
    }

    #[test]
    fn wire_format_is_fixed() {
        let check = |facts: &[Fact], omitted, expected: &str| {
            let shard = Shard { facts: facts.to_vec(), omitted };
            assert_eq!(shard.encode(), expected);
            assert_eq!(Shard::decode(expected), Some(shard));
        };
        check(&[], 0, "");
        check(&[], 3, "1+3");
        check(&[down(8)], 0, "1AAAAAAAAAAgBZVPxAAE");
        let ejected = Fact { state: FactState::Ejected, reason: Reason::GatewayErrors, ..down(16) };
        check(&[down(8), ejected], 7, "1AAAAAAAAAAgBZVPxAAEAAAAAAAAAEARlU_EACQ+7");
    }

    #[test]
    fn garbage_is_not_a_shard() {
        let check = |text: &str| assert_eq!(Shard::decode(text), None, "{text:?}");
        check("2AAAA");
        check("1AAAA");
        check("1AAAAAAAAAAgBZVPxAAE+x");
        check("1AAAAAAAAAAgBZVPxAAE=");
        check("1\u{fffd}");
        // Twice the same endpoint.
        check("1AAAAAAAAAAgBZVPxAAEAAAAAAAAACAFlU_EAAQ");
        check(&format!("1{}", "A".repeat(4096)));
    }

    #[test]
    fn codes_of_later_versions_are_read() {
        let mut bytes = vec![0; RECORD_BYTES];
        bytes[8] = 200;
        bytes[13] = 200;
        let text = format!("1{}", URL_SAFE_NO_PAD.encode(bytes));
        let shard = Shard::decode(&text).unwrap();
        assert_eq!((shard.facts[0].state, shard.facts[0].reason), (FactState::Unknown, Reason::Other));
    }

    #[test]
    fn every_code_is_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of_code(reason.code()), reason);
        }
        for state in [FactState::Down, FactState::Degraded, FactState::Unknown, FactState::Ejected] {
            assert_eq!(FactState::of_code(state.code()), state);
        }
    }

    #[test]
    fn full_shards_keep_what_is_down_and_count_the_rest() {
        let ejected = |n: u64| Fact { state: FactState::Ejected, ..down(n * 8) };
        let values = encode_shards((0..60).map(ejected).chain((100..110).map(|n| down(n * 8))));
        assert!(values[1..].iter().all(String::is_empty));
        assert!(values[0].len() <= 1000, "{} characters", values[0].len());
        let shard = Shard::decode(&values[0]).unwrap();
        assert_eq!((shard.facts.len(), shard.omitted), (MAX_FACTS_PER_SHARD, 22));
        assert_eq!(shard.facts.iter().filter(|fact| fact.state == FactState::Down).count(), 10);
        assert_eq!(shard.fact(EndpointId(105 * 8)).map(|fact| fact.state), Some(FactState::Down));
        assert_eq!(shard.fact(EndpointId(59 * 8)), None);
    }

    #[test]
    fn ejections_are_limited() {
        let ejected = |n: u64| Fact { state: FactState::Ejected, ..down(n) };
        let values = encode_shards((0..200).map(ejected));
        let told: usize = values.iter().map(|value| Shard::decode(value).unwrap().facts.len()).sum();
        assert_eq!(told, MAX_EJECTED_FACTS);
    }

    #[test]
    fn down_wins_over_ejected() {
        let ejected = Fact { state: FactState::Ejected, ..down(3) };
        let values = encode_shards([ejected, down(3), ejected]);
        assert_eq!(Shard::decode(&values[3]).unwrap().facts, [down(3)]);
    }
}
