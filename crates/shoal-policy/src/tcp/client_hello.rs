//! The server name in a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3): read, not answered.

/// Longest ClientHello that is read, bytes on the wire.
pub const MAX_HELLO: usize = 16 << 10;

/// The records that one ClientHello may be spread over.
const MAX_RECORDS: usize = 16;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const MAX_NAME: usize = 253;

/// The bytes begin with no ClientHello, or with one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case; `None` = no name was sent.
    pub server_name: Option<String>,
}

/// Reads the ClientHello at the beginning of `bytes`; `None` = more must come.
pub fn read(bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
    let mut message = Vec::new();
    let mut rest = bytes;
    for _ in 0..MAX_RECORDS {
        if let Some(body) = whole_message(&message)? {
            return read_body(body).map(Some);
        }
        // One record: type, version (3.0 to 3.3 here), length, fragment.
        match rest {
            [] | [HANDSHAKE_RECORD] | [HANDSHAKE_RECORD, 3] => return more(bytes),
            [HANDSHAKE_RECORD, 3, 0..=4] | [HANDSHAKE_RECORD, 3, 0..=4, _] => return more(bytes),
            [HANDSHAKE_RECORD, 3, 0..=4, high, low, fragment @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > MAX_HELLO {
                    return Err(Malformed);
                }
                message.extend_from_slice(&fragment[..fragment.len().min(length)]);
                rest = fragment.get(length..).unwrap_or_default();
            }
            _ => return Err(Malformed),
        }
    }
    whole_message(&message)?.ok_or(Malformed).and_then(read_body).map(Some)
}

fn more(bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
    if bytes.len() < MAX_HELLO { Ok(None) } else { Err(Malformed) }
}

/// The body of the handshake message, once all of it is there.
fn whole_message(message: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Malformed);
    }
    let [_, a, b, c, body @ ..] = message else { return Ok(None) };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if length > MAX_HELLO { Err(Malformed) } else { Ok(body.get(..length)) }
}

fn read_body(body: &[u8]) -> Result<ClientHello, Malformed> {
    let mut body = Reader(body);
    // Version and random.
    body.take(2 + 32)?;
    // Session id, cipher suites, compression methods.
    body.short_vector()?;
    body.vector()?;
    body.short_vector()?;
    if body.0.is_empty() {
        return Ok(ClientHello { server_name: None });
    }
    let mut extensions = Reader(body.vector()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.vector()?;
        if kind == SERVER_NAME {
            return read_names(data).map(|name| ClientHello { server_name: Some(name) });
        }
    }
    Ok(ClientHello { server_name: None })
}

/// One host name, and it may be nothing else: two would leave the choice to whoever reads it.
fn read_names(data: &[u8]) -> Result<String, Malformed> {
    let mut list = Reader(Reader(data).vector()?);
    let [HOST_NAME] = *list.take(1)? else { return Err(Malformed) };
    let name = list.vector()?;
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !list.0.is_empty() || name.is_empty() || name.len() > MAX_NAME || !name.iter().all(fits) {
        return Err(Malformed);
    }
    let name = String::from_utf8(name.to_ascii_lowercase()).map_err(|_| Malformed)?;
    Ok(name)
}

/// Takes parts off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<2>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*taken))
    }

    fn vector(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(length.into())
    }

    fn short_vector(&mut self) -> Result<&'a [u8], Malformed> {
        let [length] = *self.take(1)? else { return Err(Malformed) };
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u16).to_be_bytes()[..], body].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(data)].concat()
    }

    fn name_extension(name: &[u8]) -> Vec<u8> {
        extension(SERVER_NAME, &vector(&[&[HOST_NAME][..], &vector(name)].concat()))
    }

    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([3, 1, 2, 3]);
        body.extend(vector(&[0x13, 1, 0x13, 2]));
        body.extend([1, 0]);
        body.extend(vector(extensions));
        let length = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO, length[1], length[2], length[3]], &body[..]].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| [&[HANDSHAKE_RECORD, 3, 1][..], &vector(part)].concat())
            .collect()
    }

    #[test]
    fn finds_the_name() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let hello = ClientHello { server_name: expected.map(str::to_owned) };
            assert_eq!(read(bytes), Ok(Some(hello.clone())), "{expected:?}");
            assert_eq!(read(&[bytes, &[20, 3, 3, 0, 1, 1]].concat()), Ok(Some(hello)), "and more");
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{end} bytes");
            }
        };
        let named = message(&[extension(10, &[0; 900]), name_extension(b"App.Example")].concat());
        check(&records(&named, 16_384), Some("app.example"));
        check(&records(&named, 100), Some("app.example"));
        check(&records(&message(&extension(43, &[2, 3, 4])), 16_384), None);
        check(&records(&message(b""), 16_384), None);
    }

    #[test]
    fn refuses_what_is_no_hello() {
        let check = |what: &str, bytes: &[u8]| assert_eq!(read(bytes), Err(Malformed), "{what}");
        check("HTTP", b"GET / HTTP/1.1\r\n");
        check("SSL 2", &[0x80, 0x2e, 1, 0, 2]);
        check("an alert", &[21, 3, 1, 0, 2, 2, 40]);
        check("TLS 4", &[22, 4]);
        check("an empty record", &[22, 3, 1, 0, 0]);
        check("a record that is too long", &[22, 3, 1, 0xff, 0xff]);
        check("a server's hello", &[22, 3, 1, 0, 4, 2, 0, 0, 0]);
        check("a message that is too long", &[22, 3, 1, 0, 4, 1, 0xff, 0, 0]);
        check("too many records", &records(&message(&name_extension(b"a.example")), 1));
        check("a message without a body", &records(&[CLIENT_HELLO, 0, 0, 0], 9));
        let of = |extensions: &[u8]| records(&message(extensions), 16_384);
        check("an extension that ends early", &of(&[0, 0, 0, 9, 0]));
        check("an empty name", &of(&name_extension(b"")));
        check("a null in the name", &of(&name_extension(b"a\0.example")));
        check("a space in the name", &of(&name_extension(b"a .example")));
        check("a long name", &of(&name_extension(&[b'a'; 254])));
        check("another kind of name", &of(&extension(SERVER_NAME, &vector(&[1, 0, 1, b'a']))));
        let two = [0, 0, 1, b'a', 0, 0, 1, b'b'];
        check("two names", &of(&extension(SERVER_NAME, &vector(&two))));
        check("no list", &of(&extension(SERVER_NAME, b"")));
    }

    #[test]
    fn no_input_is_too_strange() {
        let seed = records(&message(&name_extension(b"app.example")), 30);
        for place in 0..seed.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = seed.clone();
                bytes[place] = byte;
                let _ = read(&bytes);
            }
        }
        assert_eq!(read(&vec![22; MAX_HELLO]), Err(Malformed));
    }
}
