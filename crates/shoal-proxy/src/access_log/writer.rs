//! The thread that writes access logs: to the node's own output, and to the files that listeners name.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait for the writer; more are dropped and counted.
const MAX_WAITING: usize = 8192;
/// Files open at once; when there would be more, all are closed and opened again as they are written to.
const MAX_FILES: usize = 64;
/// How often it is asked whether a file is still the one of that name.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A line, and where it goes.
pub(crate) struct LogLine {
    pub(crate) text: String,
    /// `None` = the node's own output.
    pub(crate) path: Option<Arc<Path>>,
}

/// Starts the writer: it ends when the last sender is gone.
pub(crate) fn start(out: Box<dyn Write + Send>) -> io::Result<SyncSender<LogLine>> {
    let (lines, waiting): (SyncSender<LogLine>, Receiver<LogLine>) = sync_channel(MAX_WAITING);
    let mut writer = Writer { out, files: BTreeMap::new() };
    thread::Builder::new().name("access-log".into()).spawn(move || {
        while let Ok(line) = waiting.recv() {
            writer.write(&line);
            for line in waiting.try_iter().take(MAX_WAITING) {
                writer.write(&line);
            }
            writer.flush();
        }
    })?;
    Ok(lines)
}

struct Writer {
    out: Box<dyn Write + Send>,
    files: BTreeMap<Arc<Path>, LogFile>,
}

impl Writer {
    fn write(&mut self, line: &LogLine) {
        let Some(path) = &line.path else {
            if let Err(error) = writeln!(self.out, "{}", line.text) {
                tracing::warn!(%error, "could not write to the access log");
            }
            return;
        };
        if !self.files.contains_key(path) && self.files.len() >= MAX_FILES {
            self.flush();
            self.files.clear();
        }
        self.files.entry(path.clone()).or_default().write(path, &line.text);
    }

    fn flush(&mut self) {
        if let Err(error) = self.out.flush() {
            tracing::warn!(%error, "could not write to the access log");
        }
        for (path, file) in &mut self.files {
            file.flush(path);
        }
    }
}

/// A file that lines are appended to, and that somebody may rename at any time.
#[derive(Default)]
struct LogFile {
    open: Option<BufWriter<File>>,
    looked: Option<Instant>,
    /// The last line could not be written: said once, until it works again.
    broken: bool,
}

impl LogFile {
    fn write(&mut self, path: &Path, text: &str) {
        let written = self.current(path).and_then(|file| writeln!(file, "{text}"));
        self.report(path, written);
    }

    fn flush(&mut self, path: &Path) {
        if let Some(file) = &mut self.open {
            let flushed = file.flush();
            self.report(path, flushed);
        }
    }

    /// The file of that name; opened, or opened anew, now and then at most.
    fn current(&mut self, path: &Path) -> io::Result<&mut BufWriter<File>> {
        let is_time = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
        if is_time {
            self.looked = Some(Instant::now());
            if self.open.as_ref().is_none_or(|file| !is_file_of(file.get_ref(), path)) {
                // What was buffered goes to the file it was written for.
                self.open = None;
                self.open = Some(BufWriter::new(OpenOptions::new().append(true).create(true).open(path)?));
            }
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn report(&mut self, path: &Path, written: io::Result<()>) {
        if let Err(error) = &written
            && !self.broken
        {
            tracing::warn!(path = ?path, %error, "could not write to an access log");
        }
        self.broken = written.is_err();
    }
}

fn is_file_of(file: &File, path: &Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    id(open) == id(named)
}
