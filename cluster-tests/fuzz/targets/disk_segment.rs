//! What is on the disk of the cache: segments, their lists, and what describes an object.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| shoal_cache::fuzzing::disk_segment(bytes));
