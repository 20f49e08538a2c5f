//! A stock bird, which announces routes or hears of them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::path_text;
use crate::node::NodeProcess;
use crate::outside::{OutsideServer, find_program, text_of};
use crate::wait::wait_until;

/// For bird to answer, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running bird; it ends with its value.
pub struct Bird {
    birdc: PathBuf,
    socket: PathBuf,
    _server: OutsideServer,
}

impl Bird {
    /// Starts bird with its files in `dir`: where `node` is, or where the story is.
    pub async fn start(dir: &Path, config: &str, node: Option<&NodeProcess>) -> Result<Self> {
        let [bird, birdc] = ["bird", "birdc"].map(find_program);
        let (bird, birdc) = (bird.context("there is no bird")?, birdc.context("there is no birdc")?);
        fs::create_dir_all(dir)?;
        let (file, socket) = (dir.join("bird.conf"), Self::socket_in(dir));
        fs::write(&file, config)?;
        let mut words: Vec<OsString> =
            node.into_iter().flat_map(NodeProcess::entering).map(OsString::from).collect();
        words.extend([bird.into(), "-f".into(), "-c".into(), file.into(), "-s".into(), (&socket).into()]);
        let server = OutsideServer::spawn(Path::new(&words[0]), &words[1..], dir)?;
        let bird = Self { birdc, socket, _server: server };
        wait_until("bird answers", START_DEADLINE, async || bird.told(&["show", "status"]).await.is_ok())
            .await
            .with_context(|| OutsideServer::complaints_in(dir))?;
        Ok(bird)
    }

    /// Where one with its files in `dir` is asked.
    pub fn socket_in(dir: &Path) -> PathBuf {
        dir.join("bird.ctl")
    }

    /// What it answers.
    pub async fn told(&self, words: &[&str]) -> Result<String> {
        let arguments = [&["-s", path_text(&self.socket)], words].concat();
        text_of(self.birdc.clone(), arguments.into_iter().map(str::to_owned).collect()).await
    }
}
