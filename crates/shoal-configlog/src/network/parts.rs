//! A state on its way to another node: too large for one message, it goes in parts. The first one has the header alone.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use shoal_proto::raft as proto;
use tonic::Status;

use super::wire::decode;
use crate::machine::{Header, MAX_STATE_BYTES, StateDocument};

/// Bytes of one part.
const PART_BYTES: usize = 256 << 10;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub header: Vec<u8>,
    pub data: Vec<u8>,
    pub last: bool,
}

impl From<Part> for proto::InstallSnapshotRequest {
    fn from(Part { header, data, last }: Part) -> Self {
        Self { header, data, last }
    }
}

impl From<proto::InstallSnapshotRequest> for Part {
    fn from(proto::InstallSnapshotRequest { header, data, last }: proto::InstallSnapshotRequest) -> Self {
        Self { header, data, last }
    }
}

impl From<Part> for proto::FetchStateResponse {
    fn from(Part { header, data, last }: Part) -> Self {
        Self { header, data, last }
    }
}

impl From<proto::FetchStateResponse> for Part {
    fn from(proto::FetchStateResponse { header, data, last }: proto::FetchStateResponse) -> Self {
        Self { header, data, last }
    }
}

/// The parts of `document`, made as they are sent.
pub fn parts_of(
    header: Vec<u8>,
    document: &StateDocument,
) -> impl Iterator<Item = Part> + Send + use<> + 'static {
    let first = Part { header, data: Vec::new(), last: false };
    let mut rest = document.bytes.clone();
    let mut done = false;
    let data = std::iter::from_fn(move || {
        if done {
            return None;
        }
        let part: Bytes = rest.split_to(rest.len().min(PART_BYTES));
        done = rest.is_empty();
        Some(Part { header: Vec::new(), data: part.to_vec(), last: done })
    });
    std::iter::once(first).chain(data)
}

/// Collects the parts of a state and checks that they are what its header announced.
pub async fn collect<H: DeserializeOwned + AsRef<Header>>(
    mut parts: impl Stream<Item = Result<Part, Status>> + Unpin,
) -> Result<(H, StateDocument), Status> {
    let cut_off = || Status::invalid_argument("the state ends before its last part");
    let first = parts.next().await.ok_or_else(cut_off)??;
    let head: H = decode(&first.header)?;
    let header = head.as_ref();
    if header.length > MAX_STATE_BYTES {
        let length = header.length;
        return Err(Status::resource_exhausted(format!(
            "a state of {length} bytes; {MAX_STATE_BYTES} are accepted"
        )));
    }
    let (mut bytes, mut last) = (first.data, first.last);
    while !last {
        let part = parts.next().await.ok_or_else(cut_off)??;
        if (bytes.len() + part.data.len()) as u64 > header.length {
            return Err(Status::invalid_argument("the state is longer than announced"));
        }
        bytes.extend_from_slice(&part.data);
        last = part.last;
    }
    let document = StateDocument { bytes: bytes.into() };
    header
        .verify(&document)
        .map_err(|damage| Status::data_loss(format!("the state is damaged: {damage}")))?;
    Ok((head, document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_cut_into_parts_and_the_last_one_says_so() {
        let check = |length: usize, expected: &[usize]| {
            let document = StateDocument { bytes: vec![7; length].into() };
            let parts: Vec<_> = parts_of(vec![1], &document).collect();
            assert_eq!(parts[0].header, [1]);
            assert!(parts[1..].iter().all(|part| part.header.is_empty()));
            let lengths: Vec<_> = parts[1..].iter().map(|part| part.data.len()).collect();
            assert_eq!(lengths, expected);
            assert_eq!(parts.iter().filter(|part| part.last).count(), 1);
            assert!(parts.last().unwrap().last);
        };
        check(0, &[0]);
        check(1, &[1]);
        check(PART_BYTES, &[PART_BYTES]);
        check(PART_BYTES + 1, &[PART_BYTES, 1]);
    }
}
