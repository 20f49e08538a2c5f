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
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`.
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
    /// What would override the target or the method, as `X-Original-URL` does, and `shoal-*`: never believed from outside.
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
    for name in headers.iter().map(|(name, _)| name.as_str()) {
        let field = match name {
            "host" if !std::mem::replace(&mut seen_host, true) => continue,
            "host" => Field::RepeatedHost,
            "cookie" if !std::mem::replace(&mut seen_cookie, true) => continue,
            "cookie" => Field::CookieCrumbs,
            "content-length" => Field::ContentLength,
            "transfer-encoding" => Field::TransferEncoding,
            "connection" => Field::Connection,
            "keep-alive" | "proxy-connection" | "proxy-authenticate" | "proxy-authorization" => Field::Hop,
            "te" => Field::Te,
            "trailer" => Field::Trailer,
            "upgrade" => Field::Upgrade,
            "expect" => Field::Expect,
            "forwarded" | "x-real-ip" => Field::Forwarded,
            "x-forwarded" | "x-host" | "x-original-host" | "x-http-host-override" => Field::Forwarded,
            "via" => Field::Via,
            "cdn-loop" => Field::CdnLoop,
            "x-request-id" => Field::RequestId,
            "client-cert" | "client-cert-chain" => Field::ClientCert,
            "x-original-url" | "x-rewrite-url" => Field::Forbidden,
            "x-http-method-override" | "x-http-method" | "x-method-override" => Field::Forbidden,
            _ if name.as_bytes().contains(&b'_') => Field::Underscored,
            _ if name.starts_with("x-forwarded-") => Field::Forwarded,
            _ if name.starts_with("shoal-") => Field::Forbidden,
            _ => continue,
        };
        present.bits |= 1 << field as u8;
    }
    present
}
