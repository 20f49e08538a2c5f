//! Questions and their answers, as text.

use std::sync::Arc;

use hickory_proto::op::{MessageType, OpCode};
use shoal_model::site::parse_site;
use shoal_model::{ConfigView, NodeId, Revision};

use super::*;

const SITE: &str = "\
routes:
  shop: { upstream: u, hosts: [shop.example.com, '*.shop.example.com', elsewhere.net] }
  deep: { upstream: u, hosts: [a.b.example.com] }
upstreams:
  u: { endpoints: ['10.0.0.1:80'] }
dns_zones:
  example.com: { nameservers: { ns1.example.com: [192.0.2.53, '2001:db8::53'], ns.other.net: [] } }
";

fn config() -> ConfigView {
    ConfigView::compile(Revision(7), &parse_site("site.yaml", SITE).unwrap()).unwrap()
}

fn nodes(count: u8) -> Vec<Candidate> {
    let node = |n: u8| Candidate {
        id: NodeId(u64::from(n)),
        region: "eu".into(),
        zone: format!("z{n}").into(),
        ready: true,
        addresses: Arc::from([IpAddr::from([198, 51, 100, n])]),
    };
    (1..=count).map(node).collect()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(absolute(name).unwrap(), kind));
    message
}

fn ask(question: &[u8], carrier: Carrier) -> Option<Reply> {
    let (config, candidates) = (config(), nodes(3));
    let scene = Scene { zones: &config.dns, serial: 7, region: "eu", candidates: &candidates, turn: 1 };
    reply(question, &scene, carrier)
}

/// The answer as one line: outcome, flags and records.
fn told(message: &Message) -> String {
    let reply = ask(&message.to_vec().unwrap(), Carrier::Udp).expect("an answer");
    let said = Message::from_vec(&reply.bytes).unwrap();
    assert_eq!(said.metadata.id, 4711);
    assert_eq!(said.queries, message.queries);
    assert!(!said.metadata.recursion_available);
    let show = |records: &[Record]| {
        let mut lines: Vec<_> = records
            .iter()
            .map(|record| format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data))
            .collect();
        lines.sort();
        lines.join(", ")
    };
    let authoritative = if said.metadata.authoritative { " aa" } else { "" };
    let mut text = format!("{}{authoritative}: {}", reply.outcome.name(), show(&said.answers));
    for (section, records) in [("authority", &said.authorities), ("additional", &said.additionals)] {
        if !records.is_empty() {
            text += &format!("; {section} {}", show(records));
        }
    }
    text
}

#[test]
fn names_of_the_site_are_answered() {
    let check = |name: &str, kind: RecordType, expected: &str| {
        assert_eq!(told(&question(name, kind)), expected, "{name} {kind}");
    };
    let soa = "example.com. 30 SOA ns.other.net. hostmaster.example.com. 7 3600 600 86400 30";
    let three = |name: &str| {
        let lines = [1, 2, 3].map(|n| format!("{name}. 30 A 198.51.100.{n}"));
        format!("answered aa: {}", lines.join(", "))
    };
    check("shop.example.com", RecordType::A, &three("shop.example.com"));
    check("sHoP.eXample.com", RecordType::A, &three("sHoP.eXample.com"));
    check("x.y.shop.example.com", RecordType::A, &three("x.y.shop.example.com"));
    check("shop.example.com", RecordType::AAAA, &format!("nodata aa: ; authority {soa}"));
    check("shop.example.com", RecordType::MX, &format!("nodata aa: ; authority {soa}"));
    check("b.example.com", RecordType::A, &format!("nodata aa: ; authority {soa}"));
    check("example.com", RecordType::A, &format!("nodata aa: ; authority {soa}"));
    check("none.example.com", RecordType::A, &format!("nxdomain aa: ; authority {soa}"));
    check("none.example.com", RecordType::ANY, &format!("nxdomain aa: ; authority {soa}"));
    check("example.com", RecordType::SOA, &format!("answered aa: {soa}"));
    check(
        "example.com",
        RecordType::NS,
        "answered aa: example.com. 30 NS ns.other.net., example.com. 30 NS ns1.example.com.; additional \
         ns1.example.com. 30 A 192.0.2.53, ns1.example.com. 30 AAAA 2001:db8::53",
    );
    check("ns1.example.com", RecordType::A, "answered aa: ns1.example.com. 30 A 192.0.2.53");
    check("elsewhere.net", RecordType::A, "refused: ");
    check("example.com", RecordType::AXFR, "refused: ");
    check("", RecordType::NS, "refused: ");
    check("shop.example.com", RecordType::ANY, "answered aa: shop.example.com. 30 HINFO RFC8482 ");
}

#[test]
fn odd_labels_are_below_what_is_ours() {
    let name = |labels: &[&[u8]]| {
        let mut message = question("example.com", RecordType::A);
        message.queries = vec![Query::query(Name::from_labels(labels.to_vec()).unwrap(), RecordType::A)];
        told(&message)
    };
    assert!(name(&[b"a\0b", b"shop", b"example", b"com"]).starts_with("nxdomain aa"));
    assert_eq!(name(&[b"shop.example", b"com"]), "refused: ");
    assert_eq!(name(&[b"shop", b"example.com"]), "refused: ");
    assert!(name(&[b"*", b"shop", b"example", b"com"]).starts_with("nxdomain aa"));
}

#[test]
fn what_is_no_question_of_the_internet_is_not_answered_as_one() {
    let bytes = |change: &dyn Fn(&mut Message)| {
        let mut message = question("shop.example.com", RecordType::A);
        change(&mut message);
        message.to_vec().unwrap()
    };
    let outcome = |question: &[u8]| ask(question, Carrier::Udp).map(|reply| reply.outcome);
    assert_eq!(outcome(b""), None);
    assert_eq!(outcome(&[0; 11]), None);
    assert_eq!(outcome(&bytes(&|message| message.metadata.message_type = MessageType::Response)), None);
    assert_eq!(
        outcome(&bytes(&|message| message.metadata.op_code = OpCode::Notify)),
        Some(Outcome::NotImplemented)
    );
    assert_eq!(outcome(&bytes(&|message| message.queries.clear())), Some(Outcome::Malformed));
    let twice = |message: &mut Message| message.queries.push(message.queries[0].clone());
    assert_eq!(outcome(&bytes(&twice)), Some(Outcome::Malformed));
    let chaos = |message: &mut Message| message.queries[0].query_class = DNSClass::CH;
    assert_eq!(outcome(&bytes(&chaos)), Some(Outcome::Refused));
    let newer = |message: &mut Message| {
        let mut edns = Edns::new();
        edns.set_version(1);
        message.edns = Some(edns);
    };
    let reply = ask(&bytes(&newer), Carrier::Udp).unwrap();
    assert_eq!(reply.outcome, Outcome::BadVersion);
    let code = Message::from_vec(&reply.bytes).unwrap().metadata.response_code;
    assert_eq!(u16::from(code), 16, "by its number, which another code shares");
    // A name that points at itself.
    let mut looping = vec![0x12, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    looping.extend([0xc0, 12, 0, 1, 0, 1]);
    let reply = ask(&looping, Carrier::Udp).unwrap();
    assert_eq!((reply.outcome, &reply.bytes[..4]), (Outcome::Malformed, &[0x12, 0x67, 0x81, 1][..]));
}

#[test]
fn what_does_not_fit_says_so() {
    let mut site = parse_site("site.yaml", SITE).unwrap();
    site.dns_zones.get_mut("example.com").unwrap().nameservers = (0..60)
        .map(|n| (format!("server-number-{n}.example.com"), vec![IpAddr::from([192, 0, 2, n])]))
        .collect();
    // As it would be if more were allowed.
    let view = DnsView::compile(&site);
    let asking = |edns: Option<u16>, carrier: Carrier| {
        let mut message = question("example.com", RecordType::NS);
        message.edns = edns.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let scene = Scene { zones: &view, serial: 7, region: "eu", candidates: &[], turn: 1 };
        let reply = reply(&message.to_vec().unwrap(), &scene, carrier).unwrap();
        let said = Message::from_vec(&reply.bytes).unwrap();
        assert_eq!(said.metadata.truncation, reply.truncated);
        assert_eq!(said.edns.is_some(), edns.is_some());
        (reply.truncated, reply.bytes.len(), said.answers.len())
    };
    assert_eq!(asking(None, Carrier::Udp), (true, 29, 0));
    assert!(asking(Some(65_535), Carrier::Udp).0, "no more than passes everywhere");
    let (truncated, bytes, answers) = asking(None, Carrier::Tcp);
    assert!(!truncated && bytes > usize::from(MAX_UDP_BYTES) && answers == 60, "{bytes}");
    let told_to_come =
        super::truncated(&question("shop.example.com", RecordType::A).to_vec().unwrap()).unwrap();
    let said = Message::from_vec(&told_to_come).unwrap();
    assert!(said.metadata.truncation && said.answers.is_empty() && said.queries.len() == 1);
}

#[test]
fn garbage_is_answered_or_not_and_never_worse() {
    let (config, candidates) = (config(), nodes(3));
    let scene = Scene { zones: &config.dns, serial: 7, region: "eu", candidates: &candidates, turn: 1 };
    let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance as usize
    };
    let kinds = [RecordType::A, RecordType::ANY, RecordType::NS, RecordType::OPT, RecordType::SIG];
    for round in 0..20_000 {
        let mut message = question(["shop.example.com", "example.com", "x"][round % 3], kinds[round % 5]);
        message.edns = (round % 2 == 0).then(Edns::new);
        let mut bytes = message.to_vec().unwrap();
        for _ in 0..next() % 6 {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.extend([0xc0, next() as u8]),
            }
        }
        if let Some(reply) = reply(&bytes, &scene, Carrier::Udp) {
            assert!(Message::from_vec(&reply.bytes).is_ok(), "{bytes:?}");
            assert!(reply.bytes.len() <= usize::from(MAX_UDP_BYTES) && reply.bytes[..2] == bytes[..2]);
        }
        truncated(&bytes);
    }
}
