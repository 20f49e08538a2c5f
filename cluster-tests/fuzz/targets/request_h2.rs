//! An HTTP/2 request: a line of `method scheme authority path` (`-` = absent), then fields.
#![no_main]

use http::uri::Builder;
use http::{Request, Version};
use libfuzzer_sys::fuzz_target;
use shoal_fuzz::{admitted, fields, split_line};
use shoal_policy::http1::Wire;

fuzz_target!(|bytes: &[u8]| {
    let (line, rest) = split_line(bytes);
    let Ok(line) = std::str::from_utf8(line) else { return };
    let mut words = line.split(' ');
    let (Some(method), Some(scheme)) = (words.next(), words.next()) else { return };
    let (Some(authority), Some(path)) = (words.next(), words.next()) else { return };
    let mut uri = Builder::new();
    if scheme != "-" {
        uri = uri.scheme(scheme);
    }
    if authority != "-" {
        uri = uri.authority(authority);
    }
    if path != "-" {
        uri = uri.path_and_query(path);
    }
    let Ok(uri) = uri.build() else { return };
    let request = Request::builder().method(method).uri(uri).version(Version::HTTP_2).body(());
    let Ok(request) = request else { return };
    let (mut head, ()) = request.into_parts();
    head.headers = fields(rest);
    // The codec refuses these itself (RFC 9113 §8.2.2).
    for gone in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        head.headers.remove(gone);
    }
    let has_body = rest.len() % 2 == 1;
    for https in [false, true] {
        let (gate, mut head) = (admitted::gate(https), head.clone());
        if let Ok(passed) = gate.admit(&mut head, Wire::default(), has_body) {
            assert!(passed.upgrade.is_none(), "there is no such upgrade in HTTP/2");
            admitted::check(&gate, &head, &passed, has_body);
        }
    }
});
