//! A mark in the directory: what lies there was out of use while things changed, and nobody wrote down what.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::segment::{numbers, remove};

/// The name of the mark.
const MARK: &str = "distrusted";

/// To be called where a node runs without the disk of its cache: what it forgets meanwhile would come back with a later run
/// that has it. That one begins with nothing.
pub fn distrust_disk(directory: &Path) {
    if !directory.is_dir() {
        return;
    }
    if let Err(error) = File::create(directory.join(MARK)).and_then(|mark| mark.sync_all()) {
        let directory = directory.display();
        tracing::warn!(%directory, %error, "cannot mark what the cache has on disk: take it away before it is used again");
    }
}

/// Takes away what a mark is on.
pub(super) fn take_away_distrusted(directory: &Path) -> io::Result<()> {
    let mark = directory.join(MARK);
    if !mark.exists() {
        return Ok(());
    }
    tracing::warn!("what the cache has on disk was out of use for a while: it is taken away");
    for segment in numbers(directory)?.into_keys() {
        remove(directory, segment)?;
    }
    fs::remove_file(mark)
}

/// Marks the directory if the thread that keeps it dies.
pub(super) struct UntilPanic<'a>(pub(super) &'a Path);

impl Drop for UntilPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            distrust_disk(self.0);
        }
    }
}
