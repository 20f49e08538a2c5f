//! What nodes say to each other about the log, for fuzzing: every payload is decoded as the service of [`RaftRpc`] does.
//!
//! [`RaftRpc`]: crate::RaftRpc

use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_model::state::{Command, ConfigState};

use super::client::SnapshotHead;
use super::wire::{decode, encode, entry_bytes};
use crate::levels::known_level;
use crate::machine::StateDocument;
use crate::types::TypeConfig;

/// The payload of any request.
pub fn payload(bytes: &[u8]) {
    stays_the_same::<AppendEntriesRequest<TypeConfig>>(bytes);
    stays_the_same::<VoteRequest<TypeConfig>>(bytes);
    stays_the_same::<TransferLeaderRequest<TypeConfig>>(bytes);
    if let Some(head) = stays_the_same::<SnapshotHead>(bytes) {
        let document = StateDocument { bytes: bytes.to_vec().into() };
        assert!(head.header.verify(&document).is_err(), "a document does not hold its own digest");
    }
    stays_the_same::<ConfigState>(bytes);
    if let Some(command) = stays_the_same::<Command>(bytes) {
        assert!(entry_bytes(&command) < usize::MAX);
        // What this version does not know is not applied.
        if let Ok(Some(command)) = command.opened(known_level()) {
            apply(command);
        }
    }
}

/// Two nodes that apply the same command come to the same state and the same answer, and that state can be stored.
fn apply(command: Command) {
    let (mut one, mut other) = (ConfigState::default(), ConfigState::default());
    for index in 1..3 {
        let replies = [one.apply(index, command.clone()), other.apply(index, command.clone())];
        assert_eq!(format!("{:?}", replies[0]), format!("{:?}", replies[1]), "applying is deterministic");
    }
    let stored = StateDocument::of(&one).expect("a state can be stored");
    let read = stored.read().expect("a stored state can be read");
    let again = StateDocument::of(&read).expect("a state can be stored");
    assert_eq!(stored.bytes, again.bytes, "it is the same state");
}

/// What is decoded can be encoded, and decoded again to what gives the same bytes.
fn stays_the_same<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let decoded: T = decode(bytes).ok()?;
    let first = encode(&decoded).expect("what was decoded can be encoded");
    let again: T = decode(&first).expect("what was encoded can be decoded");
    assert_eq!(encode(&again).ok().as_ref(), Some(&first), "it says the same");
    Some(decoded)
}
