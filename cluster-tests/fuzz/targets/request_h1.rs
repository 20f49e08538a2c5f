//! Bytes of an HTTP/1 connection: read in whatever pieces they come, by whoever has read others before, they are the same
//! messages, and what the gate lets through means one thing only.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shoal_fuzz::{admitted, chunks_length};
use shoal_policy::http1::{Chunked, Framing, HeadLimits, Piece, RequestHead, RequestReader, Unreadable};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 4096, max_fields: 100 };

fuzz_target!(|bytes: &[u8]| {
    pieces_do_not_matter(bytes);
    let mut arrived = BytesMut::from(bytes);
    let mut experienced = RequestReader::default();
    loop {
        let same = arrived.clone();
        let Ok(Some(mut head)) = RequestReader::default().read(&mut arrived, LIMITS) else { return };
        for _ in 0..2 {
            let mut same = same.clone();
            let again = experienced.read(&mut same, LIMITS);
            assert_eq!(again.map(|head| head.map(|head| text(&head))), Ok(Some(text(&head))));
            assert_eq!(same, arrived);
        }
        let has_body = !matches!(head.framing, Framing::Empty | Framing::Length(0));
        let gate = admitted::gate(false);
        let Ok(passed) = gate.admit(&mut head.parts, head.wire, has_body) else { return };
        admitted::check(&gate, &head.parts, &passed, has_body);
        if !head.persists || !take_body(head.framing, &mut arrived) {
            return;
        }
    }
});

/// Takes the body off; `false` = it is broken, or not all there.
fn take_body(framing: Framing, arrived: &mut BytesMut) -> bool {
    match framing {
        Framing::Empty => true,
        Framing::Length(length) if length <= arrived.len() as u64 => {
            _ = arrived.split_to(length as usize);
            true
        }
        Framing::Chunked => {
            let expected = chunks_length(arrived);
            let before = arrived.len();
            let mut chunked = Chunked::default();
            while !chunked.is_end() {
                match chunked.next(arrived) {
                    Ok(Some(Piece::End)) => break,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return false,
                }
            }
            // The other reading is narrower.
            if let Some(expected) = expected {
                assert_eq!(expected, before - arrived.len(), "the next message begins here");
            }
            true
        }
        Framing::Length(_) | Framing::UntilClose => false,
    }
}

fn pieces_do_not_matter(bytes: &[u8]) {
    let first = bytes.first().map_or(1, |byte| usize::from(*byte % 13) + 1);
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, first] {
        match (&whole, read(bytes, piece)) {
            // What is malformed and endless may be told sooner when it comes whole.
            (Err(_), seen) => assert!(!matches!(seen, Ok(Some(_))), "by {piece}"),
            (Ok(whole), seen) => assert_eq!(&seen, &Ok(whole.clone()), "by {piece}"),
        }
    }
}

/// The first head, as text.
fn read(bytes: &[u8], piece: usize) -> Result<Option<String>, Unreadable> {
    let (mut reader, mut arrived) = (RequestReader::default(), BytesMut::new());
    for part in bytes.chunks(piece) {
        arrived.extend_from_slice(part);
        if let Some(head) = reader.read(&mut arrived, LIMITS)? {
            return Ok(Some(text(&head)));
        }
    }
    Ok(None)
}

fn text(head: &RequestHead) -> String {
    format!(
        "{:?} {:?} {:?} {} {}",
        head.parts, head.wire, head.framing, head.persists, head.expects_continue
    )
}
