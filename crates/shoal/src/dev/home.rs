//! The directory of a demo cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

/// Where nodes, logs and the site are kept.
pub struct Home {
    dir: PathBuf,
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
                fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
                Ok(Self { dir, temporary: None })
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("shoal-dev-").tempdir();
                let temporary = temporary.context("cannot make a temporary directory")?;
                Ok(Self { dir: temporary.path().to_owned(), temporary: Some(temporary) })
            }
        }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ports and node count of the last run.
    pub fn layout_file(&self) -> PathBuf {
        self.dir.join("dev.json")
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
