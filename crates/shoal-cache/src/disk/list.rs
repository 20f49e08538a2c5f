//! The list of a full segment: the heads of its records, so that they are known without reading all of it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::record::{HEAD_BYTES, Place, RecordHead};
use super::segment::{create_file, list_path, open_file};

const LIST_MAGIC: &[u8; 8] = b"shoalix1";
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
    let written = file.write_all(&encode_list(records)).and_then(|()| fs::rename(&unfinished, path));
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
    decode_list(&bytes, segment)
}

fn encode_list(records: &[Listed]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LIST_MAGIC.len() + records.len() * LISTED_BYTES + 8);
    out.extend_from_slice(LIST_MAGIC);
    for Listed { place, head } in records {
        out.extend_from_slice(&place.offset.to_le_bytes());
        // Without its description: the sum of the list holds for all of it.
        out.extend_from_slice(&head.encode(&[]));
    }
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn decode_list(bytes: &[u8], segment: u32) -> Option<Vec<Listed>> {
    let (rest, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(rest).to_le_bytes() != *sum {
        return None;
    }
    let records = rest.strip_prefix(LIST_MAGIC)?.chunks(LISTED_BYTES).map(|listed| {
        let (offset, head) = listed.split_first_chunk::<4>()?;
        let place = Place { segment, offset: u32::from_le_bytes(*offset) };
        Some(Listed { place, head: RecordHead::decode(head.try_into().ok()?)? })
    });
    records.collect()
}

/// A list of what was found is read as it is written, and so is what is read of `bytes`.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8], found: Vec<Listed>) {
    assert_eq!(decode_list(&encode_list(&found), 3), Some(found));
    let mut list = [&LIST_MAGIC[..], bytes].concat();
    list.extend_from_slice(&xxh3_64(&list).to_le_bytes());
    if let Some(records) = decode_list(&list, 3) {
        assert_eq!(decode_list(&encode_list(&records), 3), Some(records));
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
        let bytes = encode_list(&records);
        assert_eq!(decode_list(&bytes, 9).as_deref(), Some(&records[..]));
        assert_eq!(decode_list(&encode_list(&[]), 9).as_deref(), Some(&[][..]));
        for end in 0..bytes.len() {
            assert_eq!(decode_list(&bytes[..end], 9), None, "{end} bytes");
            let mut damaged = bytes.clone();
            damaged[end] ^= 1;
            assert_eq!(decode_list(&damaged, 9), None, "byte {end}");
        }
    }
}
