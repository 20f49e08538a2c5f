//! A datagram at the gossip's socket, from a stranger or damaged on its way.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| shoal_cluster::gossip::fuzzing::datagram(bytes));
