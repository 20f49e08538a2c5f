//! Where an upgrade is asked for: `upgrade.sock` in the data directory. One line of JSON each way.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::Outcome;
use crate::accept::{Accepting, is_own};

/// The name of the socket.
pub(super) const NAME: &str = "upgrade.sock";
/// Bytes of a question.
const MAX_QUESTION: u64 = 8 << 10;
/// Time for a question, and for taking an answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Question {
    /// `None` = the file that the running process was started from.
    program: Option<PathBuf>,
}

/// Where questions come in.
pub struct Door(Accepting<UnixListener>);

/// Somebody wants this process replaced.
#[derive(Debug)]
pub struct Asked {
    /// By which program; `None` = the file that this process was started from.
    pub program: Option<PathBuf>,
    from: Option<tokio::net::UnixStream>,
}

impl Asked {
    /// By a signal.
    pub fn by_signal() -> Self {
        Self { program: None, from: None }
    }

    /// Tells who asked; one that is gone has seen the log.
    pub async fn answer(self, outcome: &Outcome) {
        let (Some(mut from), Ok(mut text)) = (self.from, serde_json::to_vec(outcome)) else { return };
        text.push(b'\n');
        _ = tokio::time::timeout(PATIENCE, from.write_all(&text)).await;
    }
}

impl Door {
    /// On a duplicate of `socket`.
    pub fn on(socket: &std::os::unix::net::UnixListener) -> io::Result<Self> {
        let socket = UnixListener::from_std(socket.try_clone()?)?;
        Ok(Self(Accepting::on(socket, "upgrade.sock")))
    }

    /// Waits for the next question that is one.
    pub async fn asked(&self) -> Asked {
        loop {
            let (mut stream, _) = self.0.next().await;
            if is_own(&stream) {
                tracing::debug!("a proxied connection to upgrade.sock was refused");
                continue;
            }
            let mut line = String::new();
            let reading = async {
                let mut reader = tokio::io::BufReader::new((&mut stream).take(MAX_QUESTION));
                reader.read_line(&mut line).await
            };
            if let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, reading).await
                && let Ok(question) = serde_json::from_str::<Question>(&line)
            {
                return Asked { program: question.program, from: Some(stream) };
            }
        }
    }
}

/// An upgrade could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("no node runs on this directory: {path}: {source}")]
    Nobody {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It takes longer than somebody wants to wait.
    #[error("no answer within {0:?}; the upgrade goes on, and the node's log says how it ends")]
    Late(Duration),
    /// The node went away.
    #[error("the node gave no answer: {0}")]
    Silent(String),
}

/// Asks the node of `data_dir` to hand over to `program`, and waits until it has, for ever or for no longer than `patience`.
pub fn ask(
    data_dir: &Path,
    program: Option<PathBuf>,
    patience: Option<Duration>,
) -> Result<Outcome, AskError> {
    let path = data_dir.join(NAME);
    let mut stream = UnixStream::connect(&path).map_err(|source| AskError::Nobody { path, source })?;
    let silent = |error: &dyn std::fmt::Display| AskError::Silent(error.to_string());
    let mut text = serde_json::to_vec(&Question { program }).map_err(|error| silent(&error))?;
    text.push(b'\n');
    stream.write_all(&text).map_err(|error| silent(&error))?;
    stream.set_read_timeout(patience).map_err(|error| silent(&error))?;
    let mut answer = String::new();
    // The answer comes in one piece, so that this is the whole wait.
    BufReader::new(stream).read_line(&mut answer).map_err(|error| match (error.kind(), patience) {
        (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(patience)) => AskError::Late(patience),
        _ => silent(&error),
    })?;
    serde_json::from_str(&answer).map_err(|error| silent(&error))
}
