//! A file that lines are appended to, and that somebody may rename at any time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use shoal_cluster::identity::is_in_data_dir;

/// How often it is asked whether a file is still the one of that name.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes that are kept before they are written.
const BUFFER: usize = 16 << 10;

/// A file by its name, and the lines that are to be written to it.
#[derive(Default)]
pub(super) struct LogFile {
    open: Option<File>,
    looked: Option<Instant>,
    waiting: Vec<u8>,
    lines: u64,
}

/// What came of writing.
pub(super) struct Failed {
    pub(super) error: io::Error,
    /// Lines that are lost.
    pub(super) lost: u64,
}

impl LogFile {
    /// Takes a line; true = it is time to [`LogFile::flush`].
    pub(super) fn add(&mut self, text: &str) -> bool {
        self.waiting.extend_from_slice(text.as_bytes());
        self.waiting.push(b'\n');
        self.lines += 1;
        self.waiting.len() >= BUFFER
    }

    /// There is something to [`LogFile::flush`].
    pub(super) fn has_lines(&self) -> bool {
        self.lines > 0
    }

    /// Writes what waits to the file of that name.
    pub(super) fn flush(&mut self, path: &Path) -> Result<(), Failed> {
        let waiting = std::mem::take(&mut self.waiting);
        let lines = std::mem::take(&mut self.lines);
        let written = self.current(path).and_then(|mut file| file.write_all(&waiting));
        // The room is used again.
        self.waiting = waiting;
        self.waiting.clear();
        written.map_err(|error| Failed { error, lost: lines })
    }

    /// Opens it, or opens it anew, now.
    pub(super) fn reopen(&mut self, path: &Path) -> Result<(), Failed> {
        self.looked = None;
        self.open = None;
        self.current(path).map(|_| ()).map_err(|error| Failed { error, lost: 0 })
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The file of that name; opened, or opened anew, now and then at most.
    fn current(&mut self, path: &Path) -> io::Result<&File> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            if self.open.as_ref().is_none_or(|file| !is_file_of(file, path)) {
                self.open = None;
                self.open = Some(open(path)?);
            }
        }
        self.open.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// Nothing that a node keeps for itself is a log. A pipe that nobody reads is one that cannot be written to: all logs have one
/// thread, which does not wait for somebody to come. Whoever reads it may take a moment.
fn open(path: &Path) -> io::Result<File> {
    if is_in_data_dir(path) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is in the data directory of a node"));
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

fn is_file_of(file: &File, path: &Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    id(open) == id(named)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not-there/a.log");
        let mut file = LogFile::default();
        assert!(file.reopen(&path).is_err_and(|failed| failed.lost == 0));
        assert!(!file.add("a") && !file.add("b"));
        assert!(file.flush(&path).is_err_and(|failed| failed.lost == 2));
        assert!(!file.has_lines(), "they are lost once");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert!(file.reopen(&path).is_ok() && file.is_open());
        file.add("c");
        assert!(file.flush(&path).is_ok());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
    }

    #[test]
    fn nobody_is_waited_for_to_open_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut file = LogFile::default();
        file.add("a");
        assert!(file.flush(&path).is_err_and(|failed| failed.lost == 1));
        assert!(!file.is_open());
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let mut reader = OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).unwrap();
        assert!(file.reopen(&path).is_ok() && file.is_open());
        file.add("b");
        assert!(file.flush(&path).is_ok());
        let mut read = [0; 2];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"b\n");
    }

    #[test]
    fn a_file_that_is_full_of_lines_wants_to_be_flushed() {
        let mut file = LogFile::default();
        assert!(!file.add(""));
        assert!(file.add(&"x".repeat(BUFFER)));
    }
}
