//! Which fields of a head somebody has to see to, found in one pass.

use http::HeaderMap;

/// A field, or a kind of field, that is not simply passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// `Host`, twice or more.
    RepeatedHost,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `HTTP2-Settings`.
    Hop,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, and what else says who called or for which host, as `X-Host` does.
    Forwarded,
    /// What would override the target or the method, as `X-Original-URL` does, or the way out of programs that are run as CGI
    /// (`Proxy`), and `shoal-*`: never believed from outside.
    Forbidden,
    /// A name with an underscore.
    Underscored,
    /// `Via`.
    Via,
    /// `CDN-Loop`.
    CdnLoop,
    /// `X-Request-Id`.
    RequestId,
    /// `Client-Cert`, `Client-Cert-Chain` (RFC 9440).
    ClientCert,
    /// `Cookie`, twice or more (HTTP/2 sends crumbs).
    CookieCrumbs,
}

/// The outcome of [`survey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    bits: u32,
    /// How many fields there are.
    pub count: usize,
}

impl Present {
    /// There is such a field.
    pub const fn has(self, field: Field) -> bool {
        self.bits & (1 << field as u8) != 0
    }

    /// There is any of them.
    pub fn has_any(self, fields: &[Field]) -> bool {
        fields.iter().any(|field| self.has(*field))
    }
}

/// Looks at every field once.
pub fn survey(headers: &HeaderMap) -> Present {
    let mut present = Present { bits: 0, count: headers.len() };
    let mut seen_host = false;
    let mut seen_cookie = false;
    for (name, _) in headers {
        let field = match name.as_str().as_bytes() {
            b"host" if !std::mem::replace(&mut seen_host, true) => continue,
            b"host" => Field::RepeatedHost,
            b"cookie" if !std::mem::replace(&mut seen_cookie, true) => continue,
            b"cookie" => Field::CookieCrumbs,
            name => match kind_of(name) {
                Some(field) => field,
                None => continue,
            },
        };
        present.bits |= 1 << field as u8;
    }
    present
}

/// What a field of this name is, wherever it stands. As bytes: they are told apart one by one, and few are looked at.
fn kind_of(name: &[u8]) -> Option<Field> {
    let field = match name {
        // What nearly every message has.
        b"accept" | b"accept-encoding" | b"accept-language" | b"accept-ranges" | b"age" => return None,
        b"authorization" | b"cache-control" | b"content-encoding" | b"content-type" | b"date" => return None,
        b"etag" | b"last-modified" | b"location" | b"origin" | b"referer" | b"server" => return None,
        b"set-cookie" | b"user-agent" | b"vary" => return None,
        b"content-length" => Field::ContentLength,
        b"transfer-encoding" => Field::TransferEncoding,
        b"connection" => Field::Connection,
        b"keep-alive" | b"proxy-connection" | b"proxy-authenticate" | b"proxy-authorization" => Field::Hop,
        b"http2-settings" => Field::Hop,
        b"te" => Field::Te,
        b"trailer" => Field::Trailer,
        b"upgrade" => Field::Upgrade,
        b"expect" => Field::Expect,
        b"forwarded" | b"x-real-ip" => Field::Forwarded,
        b"x-forwarded" | b"x-host" | b"x-original-host" | b"x-http-host-override" => Field::Forwarded,
        b"via" => Field::Via,
        b"cdn-loop" => Field::CdnLoop,
        b"x-request-id" => Field::RequestId,
        b"client-cert" | b"client-cert-chain" => Field::ClientCert,
        b"x-original-url" | b"x-original-uri" | b"x-rewrite-url" | b"proxy" => Field::Forbidden,
        b"x-override-url" | b"x-http-path-override" | b"x-http-destinationurl" => Field::Forbidden,
        b"x-middleware-subrequest" | b"x-invoke-path" | b"x-matched-path" => Field::Forbidden,
        b"x-sendfile-type" | b"x-accel-mapping" => Field::Forbidden,
        b"x-http-method-override" | b"x-http-method" | b"x-method-override" => Field::Forbidden,
        _ if name.contains(&b'_') => Field::Underscored,
        [b'x', b'-', b'f', b'o', b'r', b'w', b'a', b'r', b'd', b'e', b'd', b'-', ..] => Field::Forwarded,
        [b's', b'h', b'o', b'a', b'l', b'-', ..] => Field::Forbidden,
        _ => return None,
    };
    Some(field)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn fields_are_known_by_their_names() {
        let check = |names: &str, expected: &[Field]| {
            let mut headers = HeaderMap::new();
            for name in names.split(' ') {
                headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
            }
            let seen = survey(&headers);
            let bits = expected.iter().fold(0, |bits, field| bits | 1 << *field as u8);
            assert_eq!((seen.bits, seen.count), (bits, headers.len()), "{names}");
        };
        check("Host accept x-mine cookie via_x", &[Field::Underscored]);
        check("host Host", &[Field::RepeatedHost]);
        check("cookie Cookie", &[Field::CookieCrumbs]);
        check("content-length te trailer", &[Field::ContentLength, Field::Te, Field::Trailer]);
        check("x-forwarded", &[Field::Forwarded]);
        check("x-forwarded-", &[Field::Forwarded]);
        check("x-forwarded-port", &[Field::Forwarded]);
        check("x-forwardedx x-forward shoal shoalx-y", &[]);
        check("shoal-", &[Field::Forbidden]);
        check("shoal-peer", &[Field::Forbidden]);
        check("shoal-pe_er x-forwarded_for", &[Field::Underscored]);
        check("date_ content-typ content-types", &[Field::Underscored]);
        check("http2-settings proxy", &[Field::Hop, Field::Forbidden]);
        check("connection keep-alive upgrade", &[Field::Connection, Field::Hop, Field::Upgrade]);
    }
}
