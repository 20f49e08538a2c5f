//! From the bytes of a question to the bytes of the answer.
//!
//! Only what a server of its own domains has to say: nothing is looked up for anybody (RFC 1034 section 4.3.1 without recursion),
//! `ANY` is answered with one small record (RFC 8482), and an answer that does not fit into a datagram says so instead of being
//! cut (RFC 2181 section 9).

use std::borrow::Cow;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use shoal_model::view::{DnsView, DnsZoneView, ZoneName};

use super::choose::{Candidate, Family, Wanted, choose};

/// Bytes of a header: without one nobody can be answered.
const HEADER: usize = 12;
/// What everybody takes in a datagram (RFC 1035 section 4.2.1).
const PLAIN_UDP_BYTES: usize = 512;
/// Largest answer in a datagram: what passes everywhere in one piece (the DNS flag day of 2020).
pub const MAX_UDP_BYTES: u16 = 1232;
/// What secondaries, of which there are none, would go by: seconds.
const SOA_TIMES: (i32, i32, i32) = (3600, 600, 86_400);

/// What answers are made of.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The domains that are answered for.
    pub zones: &'a DnsView,
    /// The number of the site's revision.
    pub serial: u32,
    /// Where the answering node stands.
    pub region: &'a str,
    /// Nodes with addresses.
    pub candidates: &'a [Candidate],
    /// Another number for each answer.
    pub turn: u64,
}

/// How the question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// What it says.
    pub outcome: Outcome,
    /// It did not fit: the same is to be asked by TCP.
    pub truncated: bool,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Here it is.
    Answered,
    /// There is nothing of that type at this name.
    NoData,
    /// There is no such name.
    NoName,
    /// The name, or what is asked of it, is none of ours.
    Refused,
    /// Only questions are understood.
    NotImplemented,
    /// It cannot be read.
    Malformed,
    /// It is written by a version of EDNS that is not known.
    BadVersion,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::NoData,
        Self::NoName,
        Self::Refused,
        Self::NotImplemented,
        Self::Malformed,
        Self::BadVersion,
    ];

    /// As figures have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoData => "nodata",
            Self::NoName => "nxdomain",
            Self::Refused => "refused",
            Self::NotImplemented => "notimp",
            Self::Malformed => "formerr",
            Self::BadVersion => "badvers",
        }
    }

    const fn code(self) -> ResponseCode {
        match self {
            Self::Answered | Self::NoData => ResponseCode::NoError,
            Self::NoName => ResponseCode::NXDomain,
            Self::Refused => ResponseCode::Refused,
            Self::NotImplemented => ResponseCode::NotImp,
            Self::Malformed => ResponseCode::FormErr,
            Self::BadVersion => ResponseCode::BADVERS,
        }
    }
}

/// Answers `question`; `None` = it is no question, and an answer might be answered in turn.
pub fn reply(question: &[u8], scene: &Scene<'_>, carrier: Carrier) -> Option<Reply> {
    let asked = match read(question)? {
        Ok(asked) => asked,
        Err(reply) => return Some(reply),
    };
    let (outcome, mut message) = answer(&asked, scene);
    let limit = match (carrier, &asked.edns) {
        (Carrier::Tcp, _) => usize::from(u16::MAX),
        (Carrier::Udp, None) => PLAIN_UDP_BYTES,
        (Carrier::Udp, Some(edns)) => usize::from(edns.max_payload().min(MAX_UDP_BYTES)).max(PLAIN_UDP_BYTES),
    };
    let whole = message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    if let Some(bytes) = whole {
        return Some(Reply { bytes, outcome, truncated: false });
    }
    empty(&mut message);
    Some(Reply { bytes: message.to_vec().ok()?, outcome, truncated: true })
}

/// An answer that says nothing but to come by TCP.
pub fn truncated(question: &[u8]) -> Option<Vec<u8>> {
    match read(question)? {
        Ok(asked) => {
            let mut message = asked.response(Outcome::Answered);
            empty(&mut message);
            message.to_vec().ok()
        }
        Err(reply) => Some(reply.bytes),
    }
}

fn empty(message: &mut Message) {
    message.answers.clear();
    message.authorities.clear();
    message.additionals.clear();
    message.metadata.truncation = true;
}

/// A question that can be answered.
struct Asked {
    metadata: Metadata,
    query: Query,
    edns: Option<Edns>,
}

/// What is asked, or the answer to what cannot be; `None` = nobody is to be answered.
fn read(question: &[u8]) -> Option<Result<Asked, Reply>> {
    let header: &[u8; HEADER] = question.first_chunk()?;
    if header[2] & 0x80 != 0 {
        return None;
    }
    let bare = |outcome: Outcome| {
        // Its id, its kind and whether recursion was wanted; nothing follows.
        let mut bytes = vec![0; HEADER];
        bytes[..2].copy_from_slice(&header[..2]);
        bytes[2] = 0x80 | header[2] & 0x79;
        bytes[3] = outcome.code().low();
        Some(Err(Reply { bytes, outcome, truncated: false }))
    };
    if header[2] & 0x78 != 0 {
        return bare(Outcome::NotImplemented);
    }
    let Ok(mut message) = Message::from_vec(question) else { return bare(Outcome::Malformed) };
    let (Some(query), true) = (message.queries.pop(), message.queries.is_empty()) else {
        return bare(Outcome::Malformed);
    };
    Some(Ok(Asked { metadata: message.metadata, query, edns: message.edns }))
}

impl Asked {
    fn response(&self, outcome: Outcome) -> Message {
        let mut message = Message::response(self.metadata.id, self.metadata.op_code);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.response_code = outcome.code();
        message.queries.push(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_BYTES);
            edns.set_rcode_high(outcome.code().high());
            message.edns = Some(edns);
        }
        message
    }
}

fn answer(asked: &Asked, scene: &Scene<'_>) -> (Outcome, Message) {
    if asked.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return (Outcome::BadVersion, asked.response(Outcome::BadVersion));
    }
    let (name, kind) = (Asking::of(asked.query.name()), asked.query.query_type());
    let transfers = matches!(kind, RecordType::AXFR | RecordType::IXFR);
    let zone =
        scene.zones.zone_of(name.text()).filter(|_| asked.query.query_class() == DNSClass::IN && !transfers);
    let Some(zone) = zone else {
        return (Outcome::Refused, asked.response(Outcome::Refused));
    };
    let place = match &name {
        Asking::Name(name) => zone.find(name),
        Asking::Below(_) => ZoneName::Unknown,
    };
    let found = Found { zone, scene, owner: asked.query.name(), is_apex: *zone.name == *name.text() };
    let records = found.records(place, kind);
    let outcome = match place {
        _ if !records.is_empty() => Outcome::Answered,
        ZoneName::Unknown => Outcome::NoName,
        ZoneName::Host | ZoneName::Nameserver(_) | ZoneName::Branch => Outcome::NoData,
    };
    let mut message = asked.response(outcome);
    message.metadata.authoritative = true;
    if records.is_empty() {
        message.authorities.extend(found.soa(zone.negative_ttl));
    }
    if kind == RecordType::NS && outcome == Outcome::Answered {
        message.additionals = found.glue();
    }
    message.answers = records;
    (outcome, message)
}

/// A name in lower case, without a final dot.
enum Asking {
    Name(String),
    /// Some label is none that a host has: there is nothing below what follows it.
    Below(String),
}

impl Asking {
    fn of(name: &Name) -> Self {
        let mut labels: Vec<Cow<'_, str>> = Vec::new();
        let all: Vec<&[u8]> = name.iter().collect();
        for label in all.into_iter().rev() {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !label.iter().all(fits) {
                labels.reverse();
                return Self::Below(labels.join("."));
            }
            labels.push(String::from_utf8_lossy(label));
        }
        labels.reverse();
        Self::Name(labels.join(".").to_ascii_lowercase())
    }

    fn text(&self) -> &str {
        match self {
            Self::Name(name) | Self::Below(name) => name,
        }
    }
}

/// A name in a domain.
struct Found<'a> {
    zone: &'a DnsZoneView,
    scene: &'a Scene<'a>,
    /// As it was asked for, capitals included.
    owner: &'a Name,
    is_apex: bool,
}

impl Found<'_> {
    fn records(&self, place: ZoneName, kind: RecordType) -> Vec<Record> {
        match (kind, place) {
            (_, ZoneName::Unknown) => Vec::new(),
            (RecordType::A, place) => self.addresses(place, Family::V4),
            (RecordType::AAAA, place) => self.addresses(place, Family::V6),
            (RecordType::SOA, _) if self.is_apex => self.soa(self.zone.ttl).into_iter().collect(),
            (RecordType::NS, _) if self.is_apex => {
                let names = self.zone.nameservers.iter().filter_map(|(name, _)| absolute(name));
                names.map(|name| self.record(RData::NS(NS(name)))).collect()
            }
            (RecordType::ANY, _) => {
                vec![self.record(RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())))]
            }
            (_, ZoneName::Host | ZoneName::Nameserver(_) | ZoneName::Branch) => Vec::new(),
        }
    }

    fn addresses(&self, place: ZoneName, family: Family) -> Vec<Record> {
        let addresses = match place {
            ZoneName::Host => choose(
                self.scene.candidates,
                &Wanted {
                    family,
                    region: self.scene.region,
                    regions: &self.zone.regions,
                    max: self.zone.max_addresses,
                    min: self.zone.min_addresses,
                    turn: self.scene.turn,
                },
            ),
            ZoneName::Nameserver(at) => {
                let addresses = &self.zone.nameservers[at].1;
                addresses.iter().filter(|address| family.has(address)).copied().collect()
            }
            ZoneName::Branch | ZoneName::Unknown => Vec::new(),
        };
        addresses.into_iter().map(|address| self.record(address_data(address))).collect()
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.owner.clone(), self.zone.ttl, data)
    }

    fn soa(&self, ttl: u32) -> Option<Record> {
        let primary = absolute(&self.zone.nameservers.first()?.0)?;
        let (refresh, retry, expire) = SOA_TIMES;
        let soa = SOA::new(
            primary,
            absolute(&self.zone.hostmaster)?,
            self.scene.serial,
            refresh,
            retry,
            expire,
            self.zone.negative_ttl,
        );
        Some(Record::from_rdata(absolute(&self.zone.name)?, ttl, RData::SOA(soa)))
    }

    /// The addresses of the servers, as far as they are answered here.
    fn glue(&self) -> Vec<Record> {
        let servers =
            self.zone.nameservers.iter().filter_map(|(name, addresses)| Some((absolute(name)?, addresses)));
        let records = servers.flat_map(|(name, addresses)| {
            addresses
                .iter()
                .map(move |address| Record::from_rdata(name.clone(), self.zone.ttl, address_data(*address)))
        });
        records.collect()
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// A name of the site, which was checked when it was written.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
