//! Questions over DNS, from anybody.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use shoal_model::site::parse_site;
use shoal_model::view::DnsView;
use shoal_model::NodeId;
use shoal_policy::dns::{Candidate, Carrier, MAX_UDP_BYTES, Outcome, Scene, reply, truncated};

const SITE: &str = "\
routes: { shop: { upstream: u, hosts: [shop.example.com, '*.shop.example.com', a.b.example.com] } }
dns_zones:
  example.com: { nameservers: { ns1.example.com: [192.0.2.53, '2001:db8::53'], ns.other.net: [] } }
";

static ZONES: LazyLock<DnsView> =
    LazyLock::new(|| DnsView::compile(&parse_site("site.yaml", SITE).expect("a site")));

static NODES: LazyLock<Vec<Candidate>> = LazyLock::new(|| {
    let node = |n: u8| Candidate {
        id: NodeId(u64::from(n)),
        region: if n.is_multiple_of(2) { "eu" } else { "us" }.into(),
        zone: format!("z{n}").into(),
        ready: !n.is_multiple_of(3),
        addresses: [IpAddr::from([192, 0, 2, n]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)])].into(),
    };
    (1..20).map(node).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let scene = Scene { zones: &ZONES, serial: 7, region: "eu", candidates: &NODES, turn: bytes.len() as u64 };
    let answers = [Carrier::Udp, Carrier::Tcp].map(|carrier| reply(bytes, &scene, carrier));
    let is_question = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
    for answer in answers.iter().flatten() {
        assert!(is_question, "an answer is not answered");
        assert_eq!(answer.bytes[..2], bytes[..2], "whoever asks finds it");
        assert!(answer.bytes[2] & 0x80 != 0 && answer.bytes[3] & 0x80 == 0, "an answer, and nobody is asked for it");
        let read = Message::from_vec(&answer.bytes).expect("it can be read");
        assert_eq!(read.metadata.truncation, answer.truncated);
        assert!(read.answers.len() <= 4, "{read}");
        let asked = Message::from_vec(bytes);
        match answer.outcome {
            Outcome::Malformed | Outcome::NotImplemented => assert_eq!(answer.bytes.len(), 12),
            _ => assert_eq!(read.queries, asked.expect("what is answered can be read").queries),
        }
    }
    if let Some(answer) = &answers[0] {
        assert!(answer.bytes.len() <= usize::from(MAX_UDP_BYTES));
        let plain = Message::from_vec(bytes).is_ok_and(|asked| asked.edns.is_none());
        assert!(!plain || answer.bytes.len() <= 512);
    }
    if let Some(told) = truncated(bytes) {
        assert!(is_question && told.len() <= bytes.len() + 11, "no more than was asked, and what was understood of EDNS");
    }
});
