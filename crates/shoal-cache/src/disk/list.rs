//! The list of a full segment: the heads of its records, so that they are known without reading all of it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::record::{HEAD_BYTES, Place, RecordHead};
use super::segment::{create_file, list_path, open_file};

const LIST_MAGIC: &[u8; 8] = b"shoalix2";
/// Bytes of a record in a list: its offset, and its head.
const LISTED_BYTES: usize = 4 + HEAD_BYTES;

/// A record, as a list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub place: Place,
    pub head: RecordHead,
}

/// Something has a name that the list of this segment would need.
pub(super) fn is_list_taken(directory: &Path, segment: u32) -> bool {
    let path = list_path(directory, segment);
    [path.with_extension("tmp"), path].iter().any(|path| fs::symlink_metadata(path).is_ok())
}

/// Writes the list of a segment, all or nothing.
pub(super) fn write_list(directory: &Path, segment: u32, records: &[Listed]) -> io::Result<()> {
    let path = list_path(directory, segment);
    let unfinished = path.with_extension("tmp");
    let mut file = create_file(&unfinished)?;
    let written = file.write_all(&encode_list(segment, records)).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It would be in the way of the next one.
        _ = fs::remove_file(unfinished);
    }
    written
}

/// The list of a segment; `None` = there is none that is whole.
pub(super) fn read_list(directory: &Path, segment: u32) -> Option<Vec<Listed>> {
    let mut bytes = Vec::new();
    open_file(&list_path(directory, segment)).ok()?.read_to_end(&mut bytes).ok()?;
    let (said, records) = decode_list(&bytes)?;
    if said != segment {
        tracing::warn!(segment, said, "a list of the cache is of another segment: it is not used");
        return None;
    }
    Some(records)
}

fn encode_list(segment: u32, records: &[Listed]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LIST_MAGIC.len() + 4 + records.len() * LISTED_BYTES + 8);
    out.extend_from_slice(LIST_MAGIC);
    out.extend_from_slice(&segment.to_le_bytes());
    for Listed { place, head } in records {
        out.extend_from_slice(&place.offset.to_le_bytes());
        // Without its description: the sum of the list holds for all of it.
        out.extend_from_slice(&head.encode(&[]));
    }
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// What is listed, and of which segment.
fn decode_list(bytes: &[u8]) -> Option<(u32, Vec<Listed>)> {
    let (rest, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(rest).to_le_bytes() != *sum {
        return None;
    }
    let (segment, records) = rest.strip_prefix(LIST_MAGIC)?.split_first_chunk::<4>()?;
    let segment = u32::from_le_bytes(*segment);
    let records = records.chunks(LISTED_BYTES).map(|listed| {
        let (offset, head) = listed.split_first_chunk::<4>()?;
        let place = Place { segment, offset: u32::from_le_bytes(*offset) };
        Some(Listed { place, head: RecordHead::decode(head.try_into().ok()?)? })
    });
    Some((segment, records.collect::<Option<_>>()?))
}

/// A list of what was found is read as it is written, and so is what is read of `bytes`.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8], found: Vec<Listed>) {
    assert_eq!(decode_list(&encode_list(3, &found)), Some((3, found)));
    let mut list = [&LIST_MAGIC[..], bytes].concat();
    list.extend_from_slice(&xxh3_64(&list).to_le_bytes());
    if let Some((segment, records)) = decode_list(&list) {
        assert_eq!(decode_list(&encode_list(segment, &records)), Some((segment, records)));
    }
}

/// A record in the ninth segment, with three bytes of description and two of body.
#[cfg(test)]
pub(super) fn listed(offset: u32) -> Listed {
    let head = RecordHead {
        kind: super::record::Kind::Object,
        variant: 1,
        key: shoal_policy::cache::key::ObjectKey(u128::from(offset) << 77),
        fill_seq: 3,
        checked_seq: 4,
        expires: 5,
        meta_bytes: 3,
        body_bytes: 2,
    };
    Listed { place: Place { segment: 9, offset }, head }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_whole_or_nothing() {
        let records = [listed(1), listed(3), listed(7)];
        let bytes = encode_list(9, &records);
        assert_eq!(decode_list(&bytes), Some((9, records.to_vec())));
        assert_eq!(decode_list(&encode_list(7, &[])), Some((7, Vec::new())));
        for end in 0..bytes.len() {
            assert_eq!(decode_list(&bytes[..end]), None, "{end} bytes");
            let mut damaged = bytes.clone();
            damaged[end] ^= 1;
            assert_eq!(decode_list(&damaged), None, "byte {end}");
        }
    }
}
