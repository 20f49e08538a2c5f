//! A small disk for one directory, which a story can fill.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::node::{NodeProcess, copy_directory};

/// Bytes that are written at once to fill it.
static BLOCK: [u8; 64 << 10] = [7; 64 << 10];

/// A filesystem in memory, for as long as this lives. It takes a mount namespace of the story's own, as
/// [`Network::around`](crate::Network::around) has.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A disk of `megabytes` on which all is that the node has, which does not run.
    pub fn under(node: &NodeProcess, megabytes: u32) -> Result<Self> {
        let data = node.data_dir();
        let aside = data.with_file_name("aside");
        fs::rename(&data, &aside)?;
        let disk = Self::on(&data, megabytes)?;
        copy_directory(&aside, &data)?;
        Ok(disk)
    }

    /// A disk of `megabytes` on `directory`, which is empty or not there.
    fn on(directory: &Path, megabytes: u32) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=700"), "story"]).arg(directory);
        let output = command.output()?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self(directory.to_owned()))
    }

    /// Takes all the room there is.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filling())?;
        let mut block = &BLOCK[..];
        while !block.is_empty() {
            match file.write(block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => block = &block[..block.len() / 2],
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filling())?)
    }

    fn filling(&self) -> PathBuf {
        self.0.join("filling")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It goes with the namespace at the latest.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
