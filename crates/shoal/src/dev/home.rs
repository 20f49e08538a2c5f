//! The directory of a demo cluster.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// Who runs a cluster in the directory has locked this file.
const LOCK: &str = "dev.lock";
/// What is written first: a directory with this file is of a demo cluster.
const LAYOUT: &str = "dev.json";

/// Where nodes, logs and the site are kept.
pub struct Home {
    dir: PathBuf,
    /// Held for as long as the cluster runs.
    _lock: File,
    /// Removed when dropped; absent when the operator named the directory.
    temporary: Option<TempDir>,
}

impl Home {
    /// `dir`, made if need be, or a new temporary directory.
    pub fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        match dir {
            Some(dir) => {
                let dir =
                    std::path::absolute(dir).with_context(|| format!("cannot use {}", dir.display()))?;
                check_own(&dir)?;
                fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
                Ok(Self { _lock: lock(&dir)?, dir, temporary: None })
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("shoal-dev-").tempdir();
                let temporary = temporary.context("cannot make a temporary directory")?;
                let dir = temporary.path().to_owned();
                Ok(Self { _lock: lock(&dir)?, dir, temporary: Some(temporary) })
            }
        }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ports and node count of the last run.
    pub fn layout_file(&self) -> PathBuf {
        self.dir.join(LAYOUT)
    }

    /// The demo site.
    pub fn site_file(&self) -> PathBuf {
        self.dir.join("site.yaml")
    }

    /// Data directory of a node.
    pub fn node_dir(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}"))
    }

    /// Log of a node.
    pub fn log_file(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}.log"))
    }

    /// Local socket of a node.
    pub fn socket(&self, node: u8) -> PathBuf {
        self.node_dir(node).join("admin.sock")
    }

    /// The node has been part of the cluster in an earlier run.
    pub fn has_node(&self, node: u8) -> bool {
        self.node_dir(node).join("identity").join("node.json").is_file()
    }

    /// Removes the directory if it is temporary.
    pub fn close(self) -> anyhow::Result<()> {
        match self.temporary {
            Some(temporary) => temporary.close().context("cannot remove the temporary directory"),
            None => Ok(()),
        }
    }
}

/// Nothing is written into a directory that somebody else uses for something else.
fn check_own(dir: &Path) -> anyhow::Result<()> {
    let cannot_read = || format!("cannot read {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(cannot_read)?,
    };
    let mut foreign = None;
    for entry in entries {
        let name = entry.with_context(cannot_read)?.file_name();
        match name.to_str() {
            Some(LAYOUT) => return Ok(()),
            Some(LOCK) => {}
            _ => foreign = Some(name),
        }
    }
    match foreign {
        None => Ok(()),
        Some(name) => bail!(
            "{} is not empty and not of a demo cluster, it has {name:?} in it; nothing was written: give --dir an empty \
             directory or a new one",
            dir.display()
        ),
    }
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK);
    let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another shoal dev runs the cluster in {}: stop it, or give another --dir", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(dir: &Path) -> Option<String> {
        Home::open(Some(dir)).err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn a_directory_of_something_else_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        let why = refusal(dir.path()).unwrap();
        assert!(why.contains("it has \"thesis.tex\" in it"), "{why}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was written");
        fs::write(dir.path().join(LAYOUT), "{}").unwrap();
        assert_eq!(refusal(dir.path()), None);
    }

    #[test]
    fn one_cluster_runs_in_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(Some(dir.path())).unwrap();
        let why = refusal(dir.path()).unwrap();
        assert!(why.contains("another shoal dev runs"), "{why}");
        drop(first);
        assert_eq!(refusal(dir.path()), None);
    }
}
