//! What nodes say to each other about the log: entries, votes, snapshots, commands.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| shoal_configlog::fuzzing::payload(bytes));
