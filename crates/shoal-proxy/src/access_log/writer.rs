//! The thread that writes access logs: to the node's own output, and to the files that listeners name.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::Receiver;
use std::thread;

use super::file::{Failed, LogFile};
use super::handle::{LogLine, MAX_WAITING, Message, Shared};

/// Files open at once; when there would be more, all are closed and opened again as they are written to.
const MAX_FILES: usize = 64;

/// Starts the writer: it ends when the last sender is gone.
pub(super) fn start(
    out: Box<dyn Write + Send>,
    waiting: Receiver<Message>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut writer =
        Writer { out, out_broken: false, files: BTreeMap::new(), broken: BTreeMap::new(), shared };
    thread::Builder::new().name("access-log".into()).spawn(move || {
        while let Ok(message) = waiting.recv() {
            writer.take(&message);
            for message in waiting.try_iter().take(MAX_WAITING) {
                writer.take(&message);
            }
            writer.flush();
            if writer.shared.changed.swap(false, Acquire) {
                writer.look();
            }
        }
    })?;
    Ok(())
}

struct Writer {
    out: Box<dyn Write + Send>,
    /// Said once, until it works again.
    out_broken: bool,
    files: BTreeMap<Arc<Path>, LogFile>,
    /// Files that could not be written to, and why: said once, until it works again.
    broken: BTreeMap<Arc<Path>, String>,
    shared: Arc<Shared>,
}

impl Writer {
    fn take(&mut self, message: &Message) {
        match message {
            Message::Line(LogLine { text, path: Some(path) }) => self.add(path, text),
            Message::Line(LogLine { text, path: None }) => {
                let written = writeln!(self.out, "{text}");
                self.report_out(written, 1);
            }
            Message::Look => {}
        }
    }

    fn add(&mut self, path: &Arc<Path>, text: &str) {
        self.make_room(path);
        let file = self.files.entry(path.clone()).or_default();
        if file.add(text) {
            let flushed = file.flush(path);
            self.report(path, flushed);
        }
    }

    fn make_room(&mut self, path: &Arc<Path>) {
        if !self.files.contains_key(path) && self.files.len() >= MAX_FILES {
            self.flush();
            self.files.clear();
        }
    }

    /// Opens what the site names and is not open yet, or everything where that was asked for, and lets go of the rest.
    fn look(&mut self) {
        let reopen = self.shared.reopen.swap(false, Relaxed);
        let wanted = self.shared.wanted().clone();
        self.files.retain(|path, _| wanted.contains(path));
        if self.broken.keys().any(|path| !wanted.contains(path)) {
            self.broken.retain(|path, _| wanted.contains(path));
            self.publish();
        }
        for path in &wanted {
            self.make_room(path);
            let file = self.files.entry(path.clone()).or_default();
            if reopen || !file.is_open() {
                let opened = file.reopen(path);
                self.report(path, opened);
            }
        }
    }

    fn flush(&mut self) {
        let flushed = self.out.flush();
        self.report_out(flushed, 0);
        let mut files = std::mem::take(&mut self.files);
        for (path, file) in files.iter_mut().filter(|(_, file)| file.has_lines()) {
            self.report(path, file.flush(path));
        }
        self.files = files;
    }

    fn report_out(&mut self, written: io::Result<()>, lines: u64) {
        if let Err(error) = &written {
            self.shared.lost.fetch_add(lines, Relaxed);
            if !self.out_broken {
                tracing::warn!(%error, "could not write to the access log");
            }
        }
        self.out_broken = written.is_err();
    }

    fn report(&mut self, path: &Arc<Path>, written: Result<(), Failed>) {
        match written {
            Ok(()) if self.broken.remove(path).is_some() => {
                tracing::info!(?path, "an access log can be written to again");
            }
            Ok(()) => return,
            Err(Failed { error, lost }) => {
                self.shared.lost.fetch_add(lost, Relaxed);
                if self.broken.contains_key(path) {
                    return;
                }
                tracing::warn!(?path, %error, "cannot write to an access log: its lines are lost, and counted");
                self.broken.insert(path.clone(), error.to_string());
            }
        }
        self.publish();
    }

    fn publish(&self) {
        self.shared.broken().clone_from(&self.broken);
    }
}
