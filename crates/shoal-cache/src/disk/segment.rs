//! A segment: a file of records, one behind the other, and beside it, once it is full, a list of them. Here are their names
//! and what a segment begins with; what is in it is read by [`super::scan`], its list by [`super::list`].

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use xxhash_rust::xxh3::xxh3_64;

use super::record::UNIT;

/// What a segment begins with takes up one unit.
pub(super) const HEADER_BYTES: u64 = UNIT;
const SEGMENT_MAGIC: &[u8; 8] = b"shoalsg2";
/// What it began with before it said its number.
const OLDER_MAGIC: &[u8; 8] = b"shoalsg1";

/// Which cluster the objects of a segment belong to: those of another have other keys and other purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(pub u128);

/// Where the records of a segment are.
pub(super) fn data_path(directory: &Path, segment: u32) -> PathBuf {
    directory.join(format!("{segment:010}.seg"))
}

/// Where the list of them is.
pub(super) fn list_path(directory: &Path, segment: u32) -> PathBuf {
    data_path(directory, segment).with_extension("idx")
}

/// What has the number of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Segment,
    /// Something of others, which is let be: a directory, a pipe, a link.
    Other,
}

/// The numbers that are in use, oldest first. Lists without a segment are taken away: a later one must not get them.
pub(super) fn numbers(directory: &Path) -> io::Result<BTreeMap<u32, Named>> {
    let (mut numbers, mut lists) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse().ok());
        let number = number.filter(|number| path.with_extension("seg") == data_path(directory, *number));
        match (path.extension().and_then(|extension| extension.to_str()), number) {
            (Some("seg"), Some(number)) => {
                numbers.insert(number, if is_file { Named::Segment } else { Named::Other });
            }
            (Some("idx" | "tmp"), _) if is_file => lists.push(path),
            (Some("idx" | "tmp"), Some(number)) => _ = numbers.entry(number).or_insert(Named::Other),
            _ => {}
        }
    }
    for path in lists {
        let is_lost = !is_file(&path.with_extension("seg"));
        if is_lost || path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(numbers)
}

/// There is a file of that name, and nothing else.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Opens a file for reading. Anything else is refused: opening a pipe would wait for somebody at its other end.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(file)
}

/// Begins a file; an error where there is anything of that name.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// Takes a segment away. The list goes first: without it the segment is read, it without the segment would be of another.
pub(super) fn remove(directory: &Path, segment: u32) -> io::Result<()> {
    let paths = [list_path(directory, segment), data_path(directory, segment)];
    for path in paths.iter().filter(|path| is_file(path)) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub epoch: Epoch,
    /// Its number: a name can be given to another file.
    pub segment: u32,
    /// The one that was the newest when it was begun. Numbers alone do not tell: those that something else has are left out.
    pub before: Option<u32>,
}

impl Header {
    pub fn encode(self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..24].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.segment.to_le_bytes());
        // None comes before itself.
        out[28..32].copy_from_slice(&self.before.unwrap_or(self.segment).to_le_bytes());
        let sum = xxh3_64(&out[..32]);
        out[32..40].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Option<Self> {
        let (epoch, rest) = bytes[8..].split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let segment = u32::from_le_bytes(*segment);
        let before = Some(u32::from_le_bytes(*rest.first_chunk()?)).filter(|before| *before != segment);
        let header = Self { epoch: Epoch(u128::from_le_bytes(*epoch)), segment, before };
        (header.encode() == *bytes).then_some(header)
    }
}

/// Whose a segment is, by what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Written by this version, for this cluster, under this number.
    Ours {
        /// See [`Header::before`].
        before: Option<u32>,
    },
    /// Written by a version whose segments do not say their number.
    Older,
    /// It says that it is of another cluster, or it was not even begun.
    Others,
    /// It says another number than its name.
    Misplaced,
    /// What it was is not known any more, or never was.
    Unknown,
}

/// Whose the segment in `file` is.
pub(super) fn origin(file: &File, epoch: Epoch, segment: u32) -> io::Result<Origin> {
    let mut found = [0; HEADER_BYTES as usize];
    match file.read_exact_at(&mut found, 0) {
        Ok(()) => Ok(match Header::decode(&found) {
            Some(header) if header.epoch != epoch => Origin::Others,
            Some(header) if header.segment != segment => Origin::Misplaced,
            Some(Header { before, .. }) => Origin::Ours { before },
            None if found.starts_with(OLDER_MAGIC) => Origin::Older,
            None => Origin::Unknown,
        }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Origin::Others),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_segment_is_let_be_and_lists_without_one_go() {
        let directory = tempfile::tempdir().unwrap();
        for name in
            ["0000000009.seg", "0000000009.idx", "0000000008.idx", "0000000009.tmp", "9.seg", "x.seg", "y"]
        {
            fs::write(directory.path().join(name), b"").unwrap();
        }
        fs::create_dir(directory.path().join("0000000007.seg")).unwrap();
        fs::create_dir(directory.path().join("0000000006.idx")).unwrap();
        let expected = BTreeMap::from([(6, Named::Other), (7, Named::Other), (9, Named::Segment)]);
        assert_eq!(numbers(directory.path()).unwrap(), expected);
        let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
        left.sort();
        let others = ["0000000006.idx", "0000000007.seg"];
        let ours = ["0000000009.idx", "0000000009.seg"];
        assert_eq!(left, [&others[..], &ours, &["9.seg", "x.seg", "y"]].concat());
    }

    #[test]
    fn segments_of_others_are_told_by_their_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = data_path(directory.path(), 1);
        let check = |bytes: &[u8], expected: Origin| {
            fs::write(&path, bytes).unwrap();
            assert_eq!(origin(&File::open(&path).unwrap(), Epoch(1), 4).unwrap(), expected);
        };
        let header = |epoch, segment, before| Header { epoch: Epoch(epoch), segment, before }.encode();
        let ours = header(1, 4, Some(2));
        check(&ours, Origin::Ours { before: Some(2) });
        check(&header(1, 4, None), Origin::Ours { before: None });
        check(&header(2, 4, Some(2)), Origin::Others);
        check(&header(2, 5, Some(2)), Origin::Others);
        check(&header(1, 5, Some(4)), Origin::Misplaced);
        check(&[&OLDER_MAGIC[..], &ours[8..]].concat(), Origin::Older);
        check(&ours[..63], Origin::Others);
        check(b"", Origin::Others);
        for place in 0..ours.len() {
            let mut other = ours;
            other[place] ^= 1;
            check(&other, Origin::Unknown);
        }
    }
}
