//! The first bytes of a connection from a balancer that speaks the PROXY protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_policy::tcp::proxy_header::{Ends, Header, MAX_HEADER, Malformed, read, write_v1, write_v2};

fuzz_target!(|bytes: &[u8]| {
    let judged = read(bytes);
    if let Ok(None) = judged {
        assert!(bytes.len() < MAX_HEADER, "nobody is waited for without end");
    }
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Ok(None) => {}
            Ok(Some(header)) => assert_eq!(judged, Ok(Some(header)), "what follows is not its business"),
            Err(Malformed) => assert_eq!(judged, Err(Malformed), "more bytes mend nothing"),
        }
    }
    let Ok(Some(header)) = judged else { return };
    assert!(header.length <= bytes.len().min(MAX_HEADER));
    for written in [write_v1(header.ends.as_ref()), write_v2(header.ends.as_ref())] {
        let Ok(Some(Header { length, ends })) = read(&written) else { panic!("{written:?} is not read") };
        assert_eq!((length, ends.map(plain)), (written.len(), header.ends.map(plain)));
    }
});

/// IPv4 addresses in IPv6 clothes undressed.
fn plain(mut ends: Ends) -> Ends {
    ends.source.set_ip(ends.source.ip().to_canonical());
    ends.destination.set_ip(ends.destination.ip().to_canonical());
    if let (std::net::SocketAddr::V6(source), std::net::SocketAddr::V6(destination)) =
        (&mut ends.source, &mut ends.destination)
    {
        source.set_scope_id(0);
        destination.set_scope_id(0);
    }
    ends
}
