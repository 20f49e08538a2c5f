//! Who called us, and how that is told to the endpoint.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderValue;
use shoal_model::view::TrustedProxiesView;

use super::forwarded::Element;
use super::own_fields::OwnFields;
use super::request::OwnName;

/// Bytes of the longest IPv4 address.
const MAX_IPV4_BYTES: usize = 15;

/// The other end of a downstream connection, with the texts that every request of it needs.
#[derive(Debug)]
pub struct Caller {
    /// Its address.
    pub address: IpAddr,
    /// The connection is encrypted.
    pub https: bool,
    /// Its forwarding fields are believed.
    pub trusted: bool,
    text: HeaderValue,
    /// What was last made for this connection: the host is nearly always the same.
    own: RefCell<Option<Rc<OwnFields>>>,
}

impl Caller {
    /// The caller at `address`; IPv4 addresses in IPv6 clothes are undressed.
    pub fn new(address: IpAddr, https: bool, proxies: &TrustedProxiesView) -> Self {
        let address = address.to_canonical();
        let trusted = proxies.include(address);
        Self { address, https, trusted, text: text_of(address), own: RefCell::default() }
    }

    /// Its address as a field value.
    pub(super) fn text(&self) -> &HeaderValue {
        &self.text
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Its request to `host`, as `Forwarded` tells of it.
    pub(super) fn element<'a>(&self, host: &'a HeaderValue) -> Element<'a> {
        Element { address: self.address, host: Some(host), scheme: Some(self.scheme()) }
    }

    /// Lets go of what is only of use while requests come.
    pub fn rest(&self) {
        self.own.take();
    }

    /// What this node adds to a request to `host` that has none of it.
    pub(super) fn own_fields(&self, host: &HeaderValue, via: &HeaderValue, own: &OwnName) -> Rc<OwnFields> {
        let mut last = self.own.borrow_mut();
        match last.as_ref() {
            Some(made) if made.is_for(host, via) => made.clone(),
            Some(_) | None => {
                let made = Rc::new(OwnFields::new(self, host, via, own));
                *last = Some(made.clone());
                made
            }
        }
    }
}

/// `address` as a field value.
pub(super) fn text_of(address: IpAddr) -> HeaderValue {
    let text = match address {
        // Every connection has one: the usual ones are written without the formatter.
        IpAddr::V4(address) => {
            let mut text = Vec::with_capacity(MAX_IPV4_BYTES);
            for (number, octet) in address.octets().into_iter().enumerate() {
                text.extend_from_slice(if number == 0 { b"" } else { b"." });
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
            text
        }
        IpAddr::V6(address) => address.to_string().into_bytes(),
    };
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("an address is plain ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_usual() {
        for text in ["0.0.0.0", "1.20.255.99", "::1", "2001:db8::ff"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(text_of(address), text);
        }
    }

    #[test]
    fn nothing_of_a_request_is_kept() {
        let caller = Caller::new("1.2.3.4".parse().unwrap(), false, &TrustedProxiesView::default());
        let read = Bytes::from(b"Host: a.example\r\n".to_vec());
        let host = HeaderValue::from_maybe_shared(read.slice(6..15)).unwrap();
        let (own, via) = (OwnName::new("n1"), HeaderValue::from_static("1.1 x"));
        let _kept = caller.own_fields(&host, &via, &own);
        drop(host);
        assert!(read.is_unique());
    }
}
