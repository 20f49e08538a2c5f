//! The cookie of a session: a byte to choose a place in a good one, one to change what stands there, then fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_fuzz::fields;
use shoal_proxy::fuzzing::session_cookie;

fuzz_target!(|bytes: &[u8]| {
    let [place, change, rest @ ..] = bytes else { return };
    session_cookie(&fields(rest), *place, *change);
});
