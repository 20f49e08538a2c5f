//! What a node of the cluster gossips: messages, facts, and what it says of itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| shoal_cluster::gossip::fuzzing::gossip(bytes));
