//! A name server that says what it is told to, over UDP.
#![allow(dead_code, reason = "each test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// A name server on a free port. It ends with the test.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    records: HashMap<(String, RecordType), Vec<(u32, RData)>>,
    asked: HashMap<String, usize>,
    mood: Mood,
}

/// How questions are answered.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// By the records; NXDOMAIN for names without any.
    #[default]
    Honest,
    /// SERVFAIL.
    Failing,
    /// Not at all.
    Silent,
}

impl NameServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let asked = zone.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = asked.lock().unwrap().answer(&buffer[..length]);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, zone }
    }

    /// From now on `name` has exactly these addresses.
    pub fn set_addresses(&self, name: &str, ttl_s: u32, ips: &[&str]) {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for ip in ips {
            match ip.parse().unwrap() {
                IpAddr::V4(ip) => v4.push((ttl_s, RData::A(A(ip)))),
                IpAddr::V6(ip) => v6.push((ttl_s, RData::AAAA(AAAA(ip)))),
            }
        }
        let mut zone = self.zone.lock().unwrap();
        zone.records.insert((name.to_owned(), RecordType::A), v4);
        zone.records.insert((name.to_owned(), RecordType::AAAA), v6);
    }

    /// From now on the service `name` has exactly these records: priority, weight, port, host.
    pub fn set_service(&self, name: &str, ttl_s: u32, records: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let mut target = Name::from_ascii(host).unwrap();
            target.set_fqdn(true);
            (ttl_s, RData::SRV(SRV::new(*priority, *weight, *port, target)))
        };
        let records = records.iter().map(record).collect();
        self.zone.lock().unwrap().records.insert((name.to_owned(), RecordType::SRV), records);
    }

    /// From now on there is no such name.
    pub fn remove(&self, name: &str) {
        self.zone.lock().unwrap().records.retain(|(known, _), _| known != name);
    }

    pub fn set_mood(&self, mood: Mood) {
        self.zone.lock().unwrap().mood = mood;
    }

    /// Questions about `name` so far.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or(0)
    }
}

impl Zone {
    fn answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(bytes).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        *self.asked.entry(name.clone()).or_default() += 1;
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match self.mood {
            Mood::Silent => return None,
            Mood::Failing => answer.metadata.response_code = ResponseCode::ServFail,
            Mood::Honest => {
                if !self.records.keys().any(|(known, _)| *known == name) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                for (ttl_s, data) in self.records.get(&(name, query.query_type())).into_iter().flatten() {
                    answer.add_answer(Record::from_rdata(query.name().clone(), *ttl_s, data.clone()));
                }
            }
        }
        answer.to_vec().ok()
    }
}
