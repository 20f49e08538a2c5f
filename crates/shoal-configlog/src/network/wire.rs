//! What travels: openraft's structures as JSON bytes inside protobuf messages, and how large it may be.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_model::state::Command;
use tonic::Status;

/// Encoded bytes of one entry, at most.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// The bytes of a structure.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|error| Status::internal(format!("cannot be encoded: {error}")))
}

/// The structure of some bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::invalid_argument(format!("cannot be decoded: {error}")))
}

/// How large the entry of a command is, not counting its id.
pub fn entry_bytes(command: &Command) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, command) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}
