//! The first bytes of a TLS connection that is passed on by its server name, beside what a TLS stack makes of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;
use shoal_policy::tcp::client_hello::{ClientHello, MAX_HELLO, Malformed, read};

fuzz_target!(|bytes: &[u8]| {
    let judged = read(bytes);
    if let Ok(None) = judged {
        assert!(bytes.len() < MAX_HELLO, "nobody is waited for without end");
    }
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Ok(None) => {}
            Ok(Some(hello)) => assert_eq!(judged, Ok(Some(hello)), "what follows is not its business"),
            Err(Malformed) => assert_eq!(judged, Err(Malformed), "more bytes mend nothing"),
        }
    }
    if let Ok(Some(ClientHello { server_name: Some(name) })) = &judged {
        assert!(!name.is_empty() && name.len() <= 253);
        assert!(
            name.bytes()
                .all(|b| !b.is_ascii_uppercase() && (b.is_ascii_alphanumeric() || b"-._".contains(&b)))
        );
    }
    let mut acceptor = Acceptor::default();
    let mut unread = bytes;
    while acceptor.read_tls(&mut unread).is_ok_and(|count| count > 0) {
        if let Ok(Some(accepted)) = acceptor.accept() {
            let theirs = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
            match judged {
                Ok(Some(hello)) if hello.server_name.is_some() => {
                    assert!(
                        theirs.is_none() || theirs == hello.server_name,
                        "two names: {theirs:?}, {hello:?}"
                    );
                }
                Ok(Some(_)) => assert_eq!(theirs, None, "a name was overlooked"),
                Ok(None) | Err(Malformed) => {}
            }
            return;
        }
    }
});
