//! A record of a segment: a head of fixed size, what describes the object, its body. Everything is checked before use.

use shoal_policy::cache::key::ObjectKey;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Records begin at multiples of this, bytes: an offset in these units fits into 32 bits whatever the segment's size.
pub(super) const UNIT: u64 = 64;
/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 68;
/// Largest description of an object, bytes: fields, key and tags are bounded elsewhere, and this once more.
pub(super) const MAX_META_BYTES: usize = 1 << 20;
/// Bodies have a sum for each piece of this many bytes: each can be read by itself.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// `Shoa`, and the version of the format.
const MAGIC: u32 = 0x5368_6f61;
const VERSION: u8 = 1;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub segment: u32,
    /// From the beginning of the segment, in [`UNIT`]s.
    pub offset: u32,
}

impl Place {
    /// Bytes from the beginning of the segment.
    pub const fn byte(self) -> u64 {
        self.offset as u64 * UNIT
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Here is an object.
    Object = 1,
    /// What was stored under the key before is not to be used any more.
    Gone = 2,
    /// One variant of it is not to be used any more.
    VariantGone = 3,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub kind: Kind,
    /// Tells the variants of a key apart.
    pub variant: u16,
    pub key: ObjectKey,
    /// The log index that the filler had applied.
    pub fill_seq: u64,
    /// The log index up to which the object is known to be valid.
    pub checked_seq: u64,
    /// When it is of no more use, Unix seconds.
    pub expires: u64,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Bytes of the description.
    pub meta_bytes: u32,
}

impl RecordHead {
    /// Says that what there is of `key` is gone; of one variant only, if one is named.
    pub fn gone(key: ObjectKey, variant: Option<u16>) -> Self {
        Self {
            kind: if variant.is_some() { Kind::VariantGone } else { Kind::Gone },
            variant: variant.unwrap_or(0),
            key,
            fill_seq: 0,
            checked_seq: 0,
            expires: 0,
            body_bytes: 0,
            meta_bytes: 0,
        }
    }

    /// As it is written, in front of `meta`.
    pub fn encode(&self, meta: &[u8]) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&[VERSION, self.kind as u8]);
        put(&self.variant.to_le_bytes());
        put(&self.key.0.to_le_bytes());
        put(&self.fill_seq.to_le_bytes());
        put(&self.checked_seq.to_le_bytes());
        put(&self.expires.to_le_bytes());
        put(&self.body_bytes.to_le_bytes());
        put(&self.meta_bytes.to_le_bytes());
        let sum = head_sum(&out, meta);
        out[HEAD_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// A head, if `bytes` are one; its sum is checked when its description is there, see [`Self::is_sound`].
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let mut at = 0;
        let mut take = |count: usize| {
            at += count;
            &bytes[at - count..at]
        };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
        if number(take(4)) != u128::from(MAGIC) || take(1) != [VERSION] {
            return None;
        }
        let kind = match take(1) {
            [1] => Kind::Object,
            [2] => Kind::Gone,
            [3] => Kind::VariantGone,
            _ => return None,
        };
        let head = Self {
            kind,
            variant: number(take(2)) as u16,
            key: ObjectKey(number(take(16))),
            fill_seq: number(take(8)) as u64,
            checked_seq: number(take(8)) as u64,
            expires: number(take(8)) as u64,
            body_bytes: number(take(8)) as u64,
            meta_bytes: number(take(4)) as u32,
        };
        (head.meta_bytes as usize <= MAX_META_BYTES).then_some(head)
    }

    /// A record may begin here, as far as two fields of its head tell.
    pub fn may_begin(bytes: &[u8]) -> bool {
        bytes.strip_prefix(&MAGIC.to_le_bytes()).is_some_and(|rest| rest.first() == Some(&VERSION))
    }

    /// `bytes`, the head as it was read, and `meta` are what was written.
    pub fn is_sound(bytes: &[u8; HEAD_BYTES], meta: &[u8]) -> bool {
        bytes[HEAD_BYTES - 8..] == head_sum(bytes, meta).to_le_bytes()
    }

    /// Where the body begins, bytes behind the head's beginning.
    pub const fn body_at(&self) -> u64 {
        HEAD_BYTES as u64 + self.meta_bytes as u64
    }

    /// What it takes up in a segment, bytes; `None` = more than any segment has.
    pub fn record_bytes(&self) -> Option<u64> {
        self.body_at().checked_add(self.body_bytes)?.checked_next_multiple_of(UNIT)
    }
}

/// Of a head without its last field, and of the description behind it.
fn head_sum(head: &[u8; HEAD_BYTES], meta: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(&head[..HEAD_BYTES - 8]);
    sum.update(meta);
    sum.digest()
}

/// The sum of each piece of a body that comes in any parts.
pub(super) fn piece_sums<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u64> {
    let (mut sums, mut sum, mut room) = (Vec::new(), Xxh3::new(), PIECE_BYTES);
    for mut part in parts {
        while !part.is_empty() {
            let (now, later) = part.split_at(part.len().min(room));
            sum.update(now);
            room -= now.len();
            part = later;
            if room == 0 {
                sums.push(sum.digest());
                (sum, room) = (Xxh3::new(), PIECE_BYTES);
            }
        }
    }
    if room < PIECE_BYTES {
        sums.push(sum.digest());
    }
    sums
}

/// The sum of one piece.
pub(super) fn piece_sum(piece: &[u8]) -> u64 {
    xxh3_64(piece)
}

/// Tells variants of a key apart.
pub(super) fn variant_of(place: &[u8]) -> u16 {
    xxh3_64(place) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> RecordHead {
        RecordHead {
            kind: Kind::Object,
            variant: 7,
            key: ObjectKey(u128::MAX - 5),
            fill_seq: 1 << 40,
            checked_seq: u64::MAX,
            expires: 1 << 33,
            meta_bytes: 3,
            body_bytes: 1 << 34,
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_sound() {
        for kind in [Kind::Object, Kind::Gone, Kind::VariantGone] {
            let head = RecordHead { kind, ..head() };
            let bytes = head.encode(b"abc");
            assert_eq!(RecordHead::decode(&bytes), Some(head));
            assert!(RecordHead::is_sound(&bytes, b"abc"));
            assert!(!RecordHead::is_sound(&bytes, b"abd"));
            for place in 0..HEAD_BYTES {
                let mut damaged = bytes;
                damaged[place] ^= 0x10;
                let is_taken = RecordHead::decode(&damaged).is_some();
                assert!(!is_taken || !RecordHead::is_sound(&damaged, b"abc"), "byte {place}");
            }
        }
        assert_eq!(RecordHead::decode(&[0; HEAD_BYTES]), None);
    }

    #[test]
    fn records_take_up_whole_units() {
        let check = |meta_bytes: u32, body_bytes: u64, expected: Option<u64>| {
            assert_eq!(RecordHead { meta_bytes, body_bytes, ..head() }.record_bytes(), expected);
        };
        check(0, 0, Some(128));
        check(60, 0, Some(128));
        check(60, 1, Some(192));
        check(0, u64::MAX, None);
    }

    #[test]
    fn pieces_have_the_same_sums_however_they_come() {
        let body: Vec<u8> = (0..2 * PIECE_BYTES + 5).map(|n| (n / 7) as u8).collect();
        let expected: Vec<u64> = body.chunks(PIECE_BYTES).map(piece_sum).collect();
        for size in [1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, body.len()] {
            assert_eq!(piece_sums(body.chunks(size)), expected, "{size}");
        }
        assert!(piece_sums([&b""[..]]).is_empty());
        assert_eq!(piece_sums([&body[..PIECE_BYTES]]).len(), 1);
    }
}
