//! Serial numbers of operators' certificates. Each is bound to the key that it was given for: what stands on the list of the
//! cluster is good with that key only, whoever has the authority's.

use aws_lc_rs::digest::{Context, SHA256};

use super::random_bytes;

/// As long as one may be (RFC 5280 §4.1.2.2).
const BYTES: usize = 20;
/// Of which so many are random, and come first.
const NONCE_BYTES: usize = 8;

/// A new one for a public key (SPKI, DER): never given twice, and of SHA-256 over its random part and the key as much as there
/// is room for.
pub(super) fn new_bound_serial(spki: &[u8]) -> [u8; BYTES] {
    let mut nonce: [u8; NONCE_BYTES] = random_bytes();
    // Positive, and not shorter in DER.
    nonce[0] = nonce[0] & 0x7f | 0x40;
    bound_serial(nonce, spki)
}

/// Whether a serial number may stand in a certificate for this key. One of another length is of before they were bound.
pub(crate) fn serial_fits(serial: &[u8], spki: &[u8]) -> bool {
    match serial.first_chunk::<NONCE_BYTES>() {
        Some(nonce) if serial.len() == BYTES => bound_serial(*nonce, spki) == serial,
        Some(_) | None => true,
    }
}

fn bound_serial(nonce: [u8; NONCE_BYTES], spki: &[u8]) -> [u8; BYTES] {
    let mut digest = Context::new(&SHA256);
    digest.update(&nonce);
    digest.update(spki);
    let digest = digest.finish();
    let mut serial = [0; BYTES];
    let (head, tail) = serial.split_at_mut(NONCE_BYTES);
    head.copy_from_slice(&nonce);
    tail.copy_from_slice(&digest.as_ref()[..BYTES - NONCE_BYTES]);
    serial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_fits_one_key() {
        let serial = new_bound_serial(b"key");
        assert_ne!(serial, new_bound_serial(b"key"));
        assert!((0x40..0x80).contains(&serial[0]), "{serial:?}");
        let with = |at: usize| {
            let mut other = serial;
            other[at] ^= 1;
            other
        };
        let check = |serial: &[u8], key: &[u8], expected| {
            assert_eq!(serial_fits(serial, key), expected, "{serial:?}");
        };
        check(&serial, b"key", true);
        check(&serial, b"kez", false);
        for at in [0, 7, 8, 19] {
            check(&with(at), b"key", false);
        }
        check(&serial[..16], b"kez", true);
        check(&[], b"key", true);
    }
}
