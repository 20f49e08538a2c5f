//! What nodes say to each other about objects of the cache.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| shoal_cache::fuzzing::peer_fields(&shoal_fuzz::fields(bytes)));
