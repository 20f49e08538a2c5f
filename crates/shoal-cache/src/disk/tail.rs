//! How far the newest segment was written, in a file of its own. What is missing of the others shows by what follows; what was
//! cut off of the last one, or that there was one more, shows by this alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use xxhash_rust::xxh3::xxh3_64;

use super::segment::open_file;

/// The name of the file.
const NAME: &str = "tail";
const MAGIC: &[u8; 8] = b"shoaltl1";

/// Up to where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub segment: u32,
    /// Bytes of it.
    pub end: u64,
}

/// The file, to note something in.
pub(super) fn open(directory: &Path) -> io::Result<File> {
    // A pipe of that name would wait for somebody at its other end.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32;
    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(directory.join(NAME))
}

impl Tail {
    /// What was noted; `None` = nothing, or it cannot be read any more.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match open_file(&directory.join(NAME)) {
            Ok(file) => _ = file.take(64).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Self::decode(&bytes))
    }

    /// Nothing of what was noted is missing if `segment` ends at `end`.
    pub const fn is_reached_by(self, segment: u32, end: u64) -> bool {
        self.segment == segment && self.end <= end
    }

    /// All at once: it is never half of one and half of another.
    pub fn note(self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.encode(), 0)
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &self.segment.to_le_bytes(), &self.end.to_le_bytes()].concat();
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (rest, sum) = bytes.split_last_chunk::<8>()?;
        let (segment, end) = rest.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        let tail =
            Self { segment: u32::from_le_bytes(*segment), end: u64::from_le_bytes(end.try_into().ok()?) };
        (xxh3_64(rest).to_le_bytes() == *sum).then_some(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again_or_lost() {
        let directory = tempfile::tempdir().unwrap();
        let read = || Tail::read(directory.path()).unwrap();
        assert_eq!(read(), None);
        let file = open(directory.path()).unwrap();
        assert_eq!(read(), None);
        let tail = Tail { segment: 3, end: 1 << 40 };
        Tail { segment: 4, end: 7 }.note(&file).unwrap();
        tail.note(&file).unwrap();
        assert_eq!(read(), Some(tail));
        for (segment, end, expected) in
            [(3, 1 << 40, true), (3, u64::MAX, true), (3, 5, false), (4, 1 << 41, false)]
        {
            assert_eq!(tail.is_reached_by(segment, end), expected, "{segment} {end}");
        }
        for at in 0..tail.encode().len() as u64 {
            file.write_all_at(&[tail.encode()[at as usize] ^ 1], at).unwrap();
            assert_eq!(read(), None, "byte {at}");
            tail.note(&file).unwrap();
        }
        file.set_len(20).unwrap();
        assert_eq!(read(), None);
    }
}
