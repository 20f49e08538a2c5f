//! What several targets read their input as.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Lines of `name: value`; what no parser would let through is left out, as is what exceeds what any listener takes.
pub fn fields(bytes: &[u8]) -> HeaderMap {
    const MOST: usize = 200;
    let mut fields = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(MOST) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    fields
}

/// The first line, and what follows it.
pub fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// How many of `bytes` are a body in chunks; `None` = it is broken or not all there. RFC 9112 §7.1, read narrowly: no
/// extensions but plain ones, and no spaces.
pub fn chunks_length(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| {
        let rest = bytes.get(from..)?;
        let length = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = &rest[..length];
        (!line.contains(&b'\n') && !line.contains(&b'\r')).then_some((line, from + length + 2))
    };
    let mut at = 0;
    loop {
        let (size, after) = line(at)?;
        let digits = size.split(|byte| *byte == b';').next()?;
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        at = after;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (trailer, after) = line(at)?;
        at = after;
        if trailer.is_empty() {
            return Some(at);
        }
    }
}

/// A request that the gate let through: what must hold of it before and after it is prepared for an endpoint.
pub mod admitted {
    use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
    use http::request::Parts;
    use http::{HeaderValue, Version};
    use shoal_model::view::TrustedProxiesView;
    use shoal_policy::forwarding::{Caller, Client, OwnName, RequestFields, prepare_request};
    use shoal_policy::gate::{Admitted, Gate, canonical_authority, canonical_path};
    use shoal_policy::http1::Wire;

    /// The gate of a listener.
    pub fn gate(https: bool) -> Gate {
        let default_authority = HeaderValue::from_static("10.0.0.1:8080");
        Gate { https, max_uri_bytes: 4096, max_field_count: 100, default_authority }
    }

    /// Checks `head`, which `gate` has just made canonical.
    pub fn check(gate: &Gate, head: &Parts, admitted: &Admitted, has_body: bool) {
        let authority = admitted.authority.as_bytes();
        assert_eq!(canonical_authority(authority, gate.https).as_deref(), Some(authority), "canonical");
        assert!(!admitted.host().is_empty() && authority.starts_with(admitted.host().as_bytes()));
        assert_eq!(head.headers.get_all(HOST).iter().collect::<Vec<_>>(), [&admitted.authority], "one host");
        assert!(head.uri.authority().is_none() && head.uri.scheme().is_none(), "origin form");
        assert_eq!(canonical_path(head.uri.path()).as_deref(), Ok(head.uri.path()), "canonical");
        assert!(!head.uri.path().split('/').any(|segment| matches!(segment, "." | "..")), "below the root");
        assert!(head.headers.len() <= gate.max_field_count);
        let mut again = head.clone();
        let readmitted = gate.admit(&mut again, Wire::default(), has_body).expect("what passed, passes");
        assert_eq!((&readmitted.authority, &readmitted.upgrade), (&admitted.authority, &admitted.upgrade));
        assert_eq!((&again.uri, &again.headers), (&head.uri, &head.headers), "nothing is left to do");
        for trusted in [false, true] {
            for header in CLIENT_IP_HEADERS {
                check_prepared(gate, head.clone(), admitted, &proxies(trusted, header));
            }
        }
    }

    /// Fields that may name a client: each in a way of its own.
    const CLIENT_IP_HEADERS: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip"];

    fn proxies(trusted: bool, header: &str) -> TrustedProxiesView {
        let networks = if trusted { vec!["192.0.2.0/24".parse().expect("a network")] } else { vec![] };
        TrustedProxiesView::new(networks, header.parse().expect("a name"))
    }

    fn check_prepared(gate: &Gate, mut head: Parts, admitted: &Admitted, proxies: &TrustedProxiesView) {
        let address = "192.0.2.7".parse().expect("an address");
        let caller = Caller::new(address, gate.https, proxies);
        let (own, request_id) = (OwnName::new("fuzz"), HeaderValue::from_static("id"));
        let client = Client::of(&head.headers, &caller, proxies);
        let (request_id, keep_trailers, keep_expect) = (&request_id, false, false);
        let (caller, own) = (&caller, &own);
        let fields = RequestFields { caller, client, proxies, own, request_id, keep_trailers, keep_expect };
        let Ok(own) = prepare_request(&mut head, admitted, fields) else { return };
        if let Some(own) = own {
            own.add_to(&mut head.headers);
        }
        assert_eq!(head.version, Version::HTTP_11);
        let headers = &head.headers;
        assert_eq!(headers.get_all(HOST).iter().collect::<Vec<_>>(), [&admitted.authority]);
        for gone in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"] {
            assert!(!headers.contains_key(gone), "{gone} ends here");
        }
        for gone in ["proxy-authorization", "x-original-url", "x-rewrite-url", "x-http-method-override"] {
            assert!(!headers.contains_key(gone), "{gone} is not believed");
        }
        assert!(headers.keys().all(|name| !name.as_str().starts_with("shoal-")), "ours alone");
        assert!(headers.keys().all(|name| !name.as_str().contains('_')), "{headers:?}");
        let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
        let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
        assert!(lengths.len() + codings.len() <= 1, "framed in one way");
        assert!(lengths.iter().all(|length| length.as_bytes().iter().all(u8::is_ascii_digit)));
        assert!(codings.iter().all(|coding| *coding == "chunked"));
        let chain: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert!(chain.len() == 1 && chain[0].as_bytes().ends_with(b"192.0.2.7"), "{chain:?}");
        assert!(caller.trusted || chain[0] == "192.0.2.7", "a stranger's word");
        let is_named = client.address != caller.address;
        if let Some(name) = &proxies.reserved_header {
            assert_eq!(headers.contains_key(name), is_named, "it names whom the others name");
        }
        for header in CLIENT_IP_HEADERS.iter().take(3) {
            let next = self::proxies(caller.trusted, header);
            let read = Client::of(headers, caller, &next);
            assert_eq!(read.address, client.address, "{header} says the same: {headers:?}");
        }
    }
}
