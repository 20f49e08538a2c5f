//! Programs of the machine that a story may use when they are there.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::wait::wait_until;

/// For a server to listen, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// The file that a server complains into.
const COMPLAINTS: &str = "stderr";

/// Where `name` is on the PATH (and in /usr/sbin, where Debian keeps nginx out of users' PATH).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// What the line of a skip begins with.
pub(crate) const SKIPPED: &str = "SKIPPED";

/// Set where nothing may be skipped: all that stories need is there.
const NO_SKIP: &str = "SHOAL_NO_SKIP";

/// Says that a story (or a part of it) did not run, past the capture of the test runner: a skip must never look like
/// a pass.
///
/// # Panics
/// Where nothing may be skipped: that is how the story fails.
pub fn skip(story: &str, why: &str) {
    say_past_capture(&format!("{SKIPPED} {story}: {why}"));
    assert!(env::var_os(NO_SKIP).is_none(), "{story} was skipped ({why}), and with {NO_SKIP} nothing may be");
}

/// Says something that is not kept back where a story passes.
pub(crate) fn say_past_capture(line: &str) {
    // Nothing can be done for a reader whose stderr is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs a program and returns its standard output; its complaint when it failed.
pub async fn text_of(program: PathBuf, arguments: Vec<String>) -> Result<String> {
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    let run = tokio::task::spawn_blocking(move || Command::new(program).args(arguments).output());
    let output = run.await??;
    anyhow::ensure!(
        output.status.success(),
        "{shown}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A server that runs until it is dropped.
pub(crate) struct OutsideServer(Child);

impl OutsideServer {
    /// Starts it, with what it complains about in `dir`, and waits until it listens on `address`.
    pub(crate) async fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        dir: &Path,
        address: SocketAddr,
    ) -> Result<Self> {
        let server = Self::spawn(program, arguments, dir)?;
        wait_until(&format!("{} listens", program.display()), START_DEADLINE, async || {
            TcpStream::connect(address).await.is_ok()
        })
        .await
        .with_context(|| Self::complaints_in(dir))?;
        Ok(server)
    }

    /// Starts it, with what it complains about in `dir`.
    pub(crate) fn spawn<A: AsRef<OsStr>>(program: &Path, arguments: &[A], dir: &Path) -> Result<Self> {
        let complaints = File::create(dir.join(COMPLAINTS))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        Ok(Self(command.spawn().with_context(|| format!("start {}", program.display()))?))
    }

    /// What one that was started so has complained about.
    pub(crate) fn complaints_in(dir: &Path) -> String {
        fs::read_to_string(dir.join(COMPLAINTS)).unwrap_or_default()
    }
}

impl Drop for OutsideServer {
    fn drop(&mut self) {
        // TERM reaches the workers too; KILL would orphan them.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
