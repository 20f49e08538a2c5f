//! Bodies that stay on disk and are read piece by piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Shared;
use super::index::Entry;
use super::record::{PIECE_BYTES, piece_sum};

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It may.
    Wait,
    /// What is not in memory is [`io::ErrorKind::WouldBlock`].
    Now,
}

/// The body of a stored object, on disk.
pub(crate) struct DiskBody {
    pub(super) file: Arc<File>,
    /// Where it begins in its segment, bytes.
    pub(super) at: u64,
    pub(super) bytes: u64,
    pub(super) sums: Box<[u64]>,
    pub(super) entry: Entry,
    pub(super) shared: Weak<Shared>,
}

impl DiskBody {
    /// Bytes of the whole.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many pieces it is read in.
    pub(crate) const fn pieces(&self) -> usize {
        self.sums.len()
    }

    /// In which piece byte `at` lies, and how far behind its beginning.
    pub(crate) const fn piece_of(at: u64) -> (usize, usize) {
        ((at / PIECE_BYTES as u64) as usize, (at % PIECE_BYTES as u64) as usize)
    }

    /// It is the body of this record.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        self.entry.place == entry.place
    }

    /// Piece `number`, as it was written. An error when it is not that any more: the object is dropped then.
    pub(crate) fn piece(&self, number: usize, patience: Patience) -> io::Result<Bytes> {
        let read = self.proven_piece(number, patience);
        if let Some(shared) = self.shared.upgrade() {
            match &read {
                Ok(piece) => _ = shared.figures.read_bytes.fetch_add(piece.len() as u64, Relaxed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => shared.lost(&self.entry, error),
            }
        }
        read
    }

    /// The same, as a task that waits for the disk.
    pub(crate) fn piece_later(self: &Arc<Self>, number: usize) -> JoinHandle<io::Result<Bytes>> {
        let body = self.clone();
        spawn_blocking(move || body.piece(number, Patience::Wait))
    }

    /// Piece `number`, if its sum is right.
    pub(super) fn proven_piece(&self, number: usize, patience: Patience) -> io::Result<Bytes> {
        let begin = number as u64 * PIECE_BYTES as u64;
        let length = self.bytes.saturating_sub(begin).min(PIECE_BYTES as u64) as usize;
        let piece = read_at(&self.file, self.at + begin, length, patience)?;
        let is_sound = self.sums.get(number).is_some_and(|sum| *sum == piece_sum(&piece));
        if is_sound { Ok(piece.into()) } else { Err(io::Error::other("a piece is not what was written")) }
    }
}

/// Reads `length` bytes at `at`.
pub(super) fn read_at(file: &File, at: u64, length: usize, patience: Patience) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    match patience {
        Patience::Wait => file.read_exact_at(&mut bytes, at)?,
        Patience::Now => {
            let mut done = 0;
            while done < length {
                match read_now(file, &mut bytes[done..], at + done as u64)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => done += read,
                }
            }
        }
    }
    Ok(bytes)
}

/// Reads what is in memory. Where the kernel cannot tell, nothing is.
#[cfg(target_os = "linux")]
fn read_now(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    match preadv2(file, &mut [io::IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read),
        Err(Errno::INTR | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Other kernels cannot tell.
#[cfg(not(target_os = "linux"))]
fn read_now(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}
