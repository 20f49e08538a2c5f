//! The PROXY protocol, versions 1 and 2: who called the balancer in front of us, said in the first bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is read, bytes; version 2 may carry extensions, which are skipped.
pub const MAX_HEADER: usize = 4096;

/// Longest header of version 1, its line end included.
const MAX_V1: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 2 header before its addresses.
const V2_FIXED: usize = 16;
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Both ends of a connection, as the side that accepted it sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows is the connection's own.
    pub length: usize,
    /// `None` = the sender speaks for itself (`LOCAL`), or cannot say (`UNKNOWN`).
    pub ends: Option<Ends>,
}

/// The bytes begin with no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads the header at the beginning of `bytes`; `None` = more must come, and all of `bytes` belongs to it.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| {
        let compared = bytes.len().min(with.len());
        bytes[..compared] == with[..compared]
    };
    if begins(V2_BEGIN) {
        read_v2(bytes)
    } else if begins(V1_BEGIN) {
        read_v1(bytes)
    } else {
        Err(Malformed)
    }
}

fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() < MAX_V1 { Ok(None) } else { Err(Malformed) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(Malformed)?;
    let length = end + 1;
    if family == "UNKNOWN" {
        return Ok(Some(Header { length, ends: None }));
    }
    let mut address = || -> Result<IpAddr, Malformed> {
        let address: IpAddr = words.next().ok_or(Malformed)?.parse().map_err(|_| Malformed)?;
        let fits = matches!((family, address), ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)));
        if fits { Ok(address) } else { Err(Malformed) }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().ok_or(Malformed).and_then(read_port);
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    let ends = Ends {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok(Some(Header { length, ends: Some(ends) }))
}

/// A port in decimal, without sign or leading zeros.
fn read_port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().map_err(|_| Malformed) } else { Err(Malformed) }
}

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, V2_LOCAL | V2_PROXY) || V2_FIXED + length > MAX_HEADER {
        return Err(Malformed);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let ends = match (command, family) {
        (V2_PROXY, TCP4) => Some(ends_v4(body).ok_or(Malformed)?),
        (V2_PROXY, TCP6) => Some(ends_v6(body).ok_or(Malformed)?),
        // What is no TCP has no address that would mean anything here.
        _ => None,
    };
    Ok(Some(Header { length: V2_FIXED + length, ends }))
}

fn ends_v4(body: &[u8]) -> Option<Ends> {
    let [a, b, c, d, e, f, g, h, ports @ ..] = *body.first_chunk::<12>()?;
    Some(with_ports(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports))
}

fn ends_v6(body: &[u8]) -> Option<Ends> {
    let (source, rest) = body.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let ports = rest.first_chunk::<4>()?;
    Some(with_ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), *ports))
}

fn with_ports(source: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) -> Ends {
    Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

/// The header of version 1 for `ends`; `None` = the sender speaks for itself.
pub fn write_v1(ends: Option<&Ends>) -> Vec<u8> {
    let Some((ends, family)) = ends.map(in_one_family) else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (source, destination) = (ends.source, ends.destination);
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
    .into_bytes()
}

/// The header of version 2, likewise.
pub fn write_v2(ends: Option<&Ends>) -> Vec<u8> {
    let mut header = V2_BEGIN.to_vec();
    let Some((ends, _)) = ends.map(in_one_family) else {
        header.extend([V2_LOCAL, 0, 0, 0]);
        return header;
    };
    header.push(V2_PROXY);
    match (ends.source.ip(), ends.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([TCP4, 0, 12]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        (source, destination) => {
            header.extend([TCP6, 0, 36]);
            header.extend(mapped(source).octets());
            header.extend(mapped(destination).octets());
        }
    }
    header.extend(ends.source.port().to_be_bytes());
    header.extend(ends.destination.port().to_be_bytes());
    header
}

/// Both addresses in the same family, as both versions demand, with its name in version 1.
fn in_one_family(ends: &Ends) -> (Ends, &'static str) {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let ends = Ends { source: plain(ends.source), destination: plain(ends.destination) };
    if ends.source.is_ipv4() && ends.destination.is_ipv4() {
        return (ends, "TCP4");
    }
    let clothed = |end: SocketAddr| SocketAddr::new(mapped(end.ip()).into(), end.port());
    (Ends { source: clothed(ends.source), destination: clothed(ends.destination) }, "TCP6")
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_BEGIN.to_vec();
        bytes.extend([command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_what_is_whole() {
        let four = ends("192.0.2.1:56324", "10.0.0.1:443");
        let six = ends("[2001:db8::1]:1", "[::1]:65535");
        let check = |bytes: &[u8], expected: Option<Ends>| {
            let header = Header { length: bytes.len(), ends: expected };
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(read(bytes), Ok(Some(header)), "{shown:?}");
            assert_eq!(read(&[bytes, b"GET / "].concat()), Ok(Some(header)), "{shown:?} and more");
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{end} bytes of {shown:?}");
            }
        };
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", Some(four));
        check(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some(six));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff:f...f:ffff anything at all 1 2\r\n", None);
        let addresses = [192, 0, 2, 1, 10, 0, 0, 1, 220, 4, 1, 187];
        check(&v2(V2_PROXY, TCP4, 12, &addresses), Some(four));
        check(&v2(V2_PROXY, TCP4, 16, &[&addresses[..], &[4, 0, 1, 9]].concat()), Some(four));
        check(&v2(V2_LOCAL, 0, 0, b""), None);
        check(&v2(V2_LOCAL, TCP4, 12, &addresses), None);
        check(&v2(V2_PROXY, 0x31, 216, &[0; 216]), None);
        check(&v2(V2_PROXY, 0x12, 12, &addresses), None);
        check(&v2(V2_PROXY, TCP4, 4080, &[&addresses[..], &[0; 4068]].concat()), Some(four));
    }

    #[test]
    fn writes_what_it_reads() {
        let check = |written: Option<Ends>, expected: Option<Ends>| {
            for bytes in [write_v1(written.as_ref()), write_v2(written.as_ref())] {
                let header = Header { length: bytes.len(), ends: expected };
                assert_eq!(read(&bytes), Ok(Some(header)), "{written:?}");
            }
        };
        check(None, None);
        let same = |ends| check(Some(ends), Some(ends));
        same(ends("192.0.2.1:56324", "10.0.0.1:443"));
        same(ends("[2001:db8::1]:1", "[::1]:65535"));
        check(Some(ends("[::ffff:192.0.2.1]:5", "10.0.0.1:443")), Some(ends("192.0.2.1:5", "10.0.0.1:443")));
        check(
            Some(ends("192.0.2.1:5", "[2001:db8::1]:6")),
            Some(ends("[::ffff:192.0.2.1]:5", "[2001:db8::1]:6")),
        );
    }

    #[test]
    fn refuses_what_is_no_header() {
        let check = |bytes: &[u8]| {
            assert_eq!(read(bytes), Err(Malformed), "{:?}", String::from_utf8_lossy(bytes));
        };
        check(b"GET / HTTP/1.1\r\n");
        check(b"PROXX");
        check(b"proxy TCP4 ");
        check(b"\r\n\r\n\0\r\nQUIT\r");
        check(&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat());
        check(&[b"PROXY UNKNOWN ", &[b'x'; 93][..], b"\r\n"].concat());
        check(&v2(V2_PROXY, TCP4, 4081, b""));
        check(&v2(V2_PROXY, TCP4, u16::MAX, b""));
        check(&v2(V2_PROXY, TCP4, 11, &[0; 11]));
        check(&v2(V2_PROXY, TCP6, 35, &[0; 35]));
        check(&v2(0x22, TCP4, 12, &[0; 12]));
        check(&v2(0x11, TCP4, 12, &[0; 12]));
        for line in [
            "",
            "TCP4",
            "TCP4 1.1.1.1 2.2.2.2 1",
            "TCP4 1.1.1.1 2.2.2.2 1 2 3",
            "TCP4 1.1.1.1  2.2.2.2 1 2",
            "TCP4 1.1.1.1 2.2.2.2 1 65536",
            "TCP4 1.1.1.1 2.2.2.2 +1 2",
            "TCP4 1.1.1.1 2.2.2.2 01 2",
            "TCP4 1.1.1.1 2.2.2.2 1 ",
            "TCP4 1.1.1 2.2.2.2 1 2",
            "TCP4 ::1 ::1 1 2",
            "TCP6 1.1.1.1 2.2.2.2 1 2",
            "TCP6 fe80::1%eth0 ::1 1 2",
            "UDP4 1.1.1.1 2.2.2.2 1 2",
            "TCP4 1.1.1.1 2.2.2.2 1 2\r",
            "TCP4 1.1.1.1\t2.2.2.2 1 2",
            "TCP4 \0.1.1.1 2.2.2.2 1 2",
            "unknown",
        ] {
            check(format!("PROXY {line}\r\n").as_bytes());
        }
        check(b"PROXY UNKNOWN\n");
        check(b"PROXY TCP4 \xff\xfe 2.2.2.2 1 2\r\n");
    }

    #[test]
    fn no_input_is_too_strange() {
        let seeds = [
            write_v1(Some(&ends("192.0.2.1:56324", "10.0.0.1:443"))),
            write_v2(Some(&ends("[2001:db8::1]:1", "[::1]:65535"))),
        ];
        for seed in seeds {
            for place in 0..seed.len() {
                for byte in 0..=u8::MAX {
                    let mut bytes = seed.clone();
                    bytes[place] = byte;
                    if let Ok(Some(header)) = read(&bytes) {
                        assert!(header.length <= bytes.len());
                    }
                }
            }
        }
    }
}
