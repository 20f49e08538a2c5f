//! Frames of HTTP/2, written by hand: what floods are made of.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// GET, http and / of the static table, and `:authority: a` (RFC 7541).
pub(super) const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 1, b'a'];
/// POST, and the same.
pub(super) const POST: [u8; 6] = [0x83, 0x86, 0x84, 0x01, 1, b'a'];
/// GET of `/medium`, and the same.
pub(super) const GET_MEDIUM: [u8; 14] =
    [0x82, 0x86, 0x04, 7, b'/', b'm', b'e', b'd', b'i', b'u', b'm', 0x01, 1, b'a'];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface, and settings with these parameters.
pub(super) fn hello(settings: &[(u8, u32)]) -> Vec<u8> {
    let parameters = settings.iter().flat_map(|(id, value)| {
        let [a, b, c, d] = value.to_be_bytes();
        [0, *id, a, b, c, d]
    });
    let settings = frame(SETTINGS, 0, 0, &parameters.collect::<Vec<u8>>());
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), settings].concat()
}

/// The `n`-th stream that a downstream opens.
pub(super) fn stream(n: u32) -> u32 {
    2 * n + 1
}
