//! Fields of answers on HTTP/2: what is said again is a byte, and what is never the same leaves the table to the others.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::frames::{HEADERS, get, greeting};
use support::outcome::next;
use support::{Origin, PATIENCE, Stage, site};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Entries of the static table, and the one of `date` (RFC 7541 appendix A).
const STATIC: usize = 61;
const DATE: Name = Name::Static(33);
/// In Huffman's code (RFC 7541 appendix B).
const X_REQUEST_ID: [u8; 9] = [0xf2, 0xb5, 0x85, 0xed, 0x69, 0x50, 0x95, 0x8d, 0x27];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Static(usize),
    /// As it was written.
    New(Vec<u8>),
}

/// How a field is written.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    /// One byte, or two.
    Indexed,
    /// In full, and kept in the table.
    Kept(Name),
    /// In full, with an entry for its name.
    Passing(Name, Vec<u8>),
    /// In full, its name as well.
    PassingNew,
}

/// A reader of field blocks with the names of its table, the youngest first. Nothing is driven out of it here.
#[derive(Default)]
struct Table(Vec<Name>);

impl Table {
    fn read(&mut self, mut block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        while let Some(first) = block.first() {
            match first {
                0x80.. => {
                    integer(&mut block, 7);
                    fields.push(Field::Indexed);
                }
                0x40.. => {
                    let name = self.name(&mut block, 6).unwrap_or_else(Name::New);
                    text(&mut block);
                    self.0.insert(0, name.clone());
                    fields.push(Field::Kept(name));
                }
                0x20.. => {
                    integer(&mut block, 5);
                }
                _ => {
                    let name = self.name(&mut block, 4);
                    let value = text(&mut block);
                    fields.push(name.map_or(Field::PassingNew, |name| Field::Passing(name, value)));
                }
            }
        }
        fields
    }

    /// The name that an entry has, or else the one that is written.
    fn name(&self, block: &mut &[u8], prefix: u8) -> Result<Name, Vec<u8>> {
        match integer(block, prefix) {
            0 => Err(text(block)),
            place @ ..=STATIC => Ok(Name::Static(place)),
            place => Ok(self.0[place - STATIC - 1].clone()),
        }
    }
}

/// RFC 7541 §5.1.
fn integer(block: &mut &[u8], prefix: u8) -> usize {
    let mut byte = || {
        let (first, rest) = block.split_first().unwrap();
        *block = rest;
        usize::from(*first)
    };
    let most = (1 << prefix) - 1;
    let mut number = byte() & most;
    let mut shift = 0;
    while number >= most {
        let more = byte();
        number += (more & 127) << shift;
        shift += 7;
        if more < 128 {
            break;
        }
    }
    number
}

/// RFC 7541 §5.2.
fn text(block: &mut &[u8]) -> Vec<u8> {
    let length = integer(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    text.to_vec()
}

#[tokio::test]
async fn request_ids_stay_out_of_the_table() {
    let answer = "HTTP/1.1 204 No Content\r\nserver: endpoint\r\nx-endpoint: one\r\n\r\n";
    let origin = Origin::start(move |_| answer).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    stream.write_all(&greeting()).await.unwrap();
    let mut table = Table::default();
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..200 {
        stream.write_all(&get(2 * n + 1)).await.unwrap();
        let block = loop {
            let frame = tokio::time::timeout(PATIENCE, next(&mut stream)).await.unwrap();
            if let (HEADERS, block) = frame.expect("the connection goes on") {
                break block;
            }
        };
        let mut fields = table.read(&block);
        if n == 0 {
            // Once it is there for its name.
            assert!(fields.contains(&Field::Kept(Name::New(X_REQUEST_ID.into()))), "{fields:?}");
            continue;
        }
        // It changes, but once a second.
        fields.retain(|field| !matches!(field, Field::Indexed) && *field != Field::Kept(DATE));
        let [Field::Passing(Name::New(name), id)] = &fields[..] else { panic!("answer {n}: {fields:?}") };
        assert_eq!(name[..], X_REQUEST_ID);
        assert!(ids.insert(id.clone()), "it is another one each time");
    }
}
