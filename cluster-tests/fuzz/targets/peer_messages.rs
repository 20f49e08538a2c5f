//! Protobuf messages between nodes, and between nodes and operators.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use shoal_proto::{admin, cache, raft};

fuzz_target!(|bytes: &[u8]| {
    stays_the_same::<raft::InstallSnapshotRequest>(bytes);
    stays_the_same::<raft::ProposeRequest>(bytes);
    stays_the_same::<raft::ProposeResponse>(bytes);
    stays_the_same::<raft::AwaitAppliedResponse>(bytes);
    stays_the_same::<raft::ReportResponse>(bytes);
    stays_the_same::<raft::JoinRequest>(bytes);
    stays_the_same::<raft::JoinResponse>(bytes);
    stays_the_same::<cache::LookupResponse>(bytes);
    stays_the_same::<cache::InvalidateRequest>(bytes);
    stays_the_same::<admin::ApplyRequest>(bytes);
    stays_the_same::<admin::PurgeRequest>(bytes);
    stays_the_same::<admin::StatusResponse>(bytes);
    stays_the_same::<admin::TopResponse>(bytes);
});

/// What is decoded is encoded no longer than needed, and decoded again to what gives the same bytes.
fn stays_the_same<M: Message + Default>(bytes: &[u8]) {
    let Ok(decoded) = M::decode(bytes) else { return };
    let first = decoded.encode_to_vec();
    assert_eq!(first.len(), decoded.encoded_len());
    let again = M::decode(&*first).expect("what is encoded can be decoded");
    assert_eq!(again.encode_to_vec(), first, "it says the same");
}
