//! A clock that is wrong and a disk that fails, for one process: `shim.c`, compiled where the story runs, stands between it and
//! the C library.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::NodeProcess;
use crate::outside::find_program;

const SOURCE: &str = include_str!("shim.c");

/// What one node believes of its clock and its disk, from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    /// By how many seconds its wall clock is ahead.
    pub clock_ahead: i64,
    /// The number of the error with which a flush fails; 0 = none.
    pub flush_error: i64,
    /// How much longer a flush takes.
    pub flush_delay: Duration,
}

/// The faults of one node. They work from its next start on.
pub struct Faults(File);

/// The shim, compiled.
pub struct FaultShim(PathBuf);

impl FaultShim {
    /// Compiles it below `dir`; `None` where there is no C compiler.
    pub fn build(dir: &Path) -> Result<Option<Self>> {
        let Some(compiler) = find_program("cc") else { return Ok(None) };
        let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
        fs::write(&source, SOURCE)?;
        let mut command = Command::new(compiler);
        let options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"].map(OsStr::new);
        command.args(options).args([library.as_os_str(), source.as_os_str()]).arg("-ldl");
        let output = command.output().context("run cc")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Some(Self(library)))
    }

    /// Puts it between `node` and its machine.
    pub fn stand_before(&self, node: &mut NodeProcess) -> Result<Faults> {
        let path = self.0.with_file_name(format!("{}.faults", node.name));
        let faults = Faults(File::create(&path)?);
        faults.believe(Belief::default())?;
        for (name, value) in [("LD_PRELOAD", &self.0), ("SHOAL_FAULTS", &path)] {
            node.set_environment(name, value.to_str().context("the directory is not UTF-8")?);
        }
        Ok(faults)
    }
}

impl Faults {
    /// The node believes this now.
    pub fn believe(&self, belief: Belief) -> Result<()> {
        let delay = i64::try_from(belief.flush_delay.as_millis())?;
        let fields = [belief.clock_ahead, belief.flush_error, delay];
        Ok(self.0.write_all_at(&fields.map(i64::to_ne_bytes).concat(), 0)?)
    }
}
