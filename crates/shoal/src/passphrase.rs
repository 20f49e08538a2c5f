//! Where passphrases come from: a file, the environment, or whoever sits at the terminal. Never an argument, which every
//! process of the machine can read.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use shoal_ctl::Failure;
use shoal_node::Passphrase;

/// Bytes of a file that are read.
const MAX_FILE_BYTES: u64 = 64 << 10;
const VARIABLE: &str = "SHOAL_PASSPHRASE";

/// Where to look.
#[derive(Args, Clone, Debug)]
pub struct PassphraseArgs {
    /// File with the passphrase, which nobody else may read [env: SHOAL_PASSPHRASE, the passphrase itself] [default: asked for]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Whether it is new, so that a slip would only be noticed when it is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is to be given twice.
    Twice,
    /// Once.
    Once,
}

impl PassphraseArgs {
    /// The passphrase; `None` = there is none, and nobody can be asked.
    pub fn find(&self, asked: Asked) -> Result<Option<Passphrase>, Failure> {
        let failed = |why: String| Failure::local("read the passphrase", why);
        let text = match &self.passphrase_file {
            Some(file) => Some(read(file).map_err(failed)?),
            None => match std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
                Some(text) => Some(text),
                None if io::stdin().is_terminal() => Some(ask(asked).map_err(failed)?),
                None => None,
            },
        };
        text.map(|text| Passphrase::new(&text).map_err(|error| failed(error.to_string()))).transpose()
    }

    /// The same where nothing goes without.
    pub fn require(&self, asked: Asked) -> Result<Passphrase, Failure> {
        self.find(asked)?.ok_or_else(|| {
            let why = format!("there is none: give --passphrase-file FILE or {VARIABLE}");
            Failure::local("read the passphrase", why)
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let file = fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!("{path} can be read by others (mode {mode:03o}): run `chmod 600` on it"));
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE_BYTES), &mut text).map_err(failed)?;
    Ok(text)
}

fn ask(asked: Asked) -> Result<String, String> {
    let first = ask_once("passphrase: ").map_err(|error| error.to_string())?;
    if asked == Asked::Twice && ask_once("once more: ").map_err(|error| error.to_string())? != first {
        return Err("the two are not the same".to_owned());
    }
    Ok(first)
}

/// A line from the terminal, which does not show it.
fn ask_once(question: &str) -> io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "{question}")?;
    terminal.flush()?;
    let hidden = Hidden::on(&terminal)?;
    let mut line = String::new();
    BufReader::new(&terminal).read_line(&mut line)?;
    drop(hidden);
    writeln!(terminal)?;
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(fs::File);

impl Hidden {
    fn on(terminal: &fs::File) -> io::Result<Self> {
        let hidden = Self(terminal.try_clone()?);
        match hidden.stty("-echo")? {
            true => Ok(hidden),
            false => Err(io::Error::other("the terminal cannot hide what is typed")),
        }
    }

    fn stty(&self, what: &str) -> io::Result<bool> {
        let mut stty = Command::new("stty");
        stty.arg(what).stdin(self.0.try_clone()?).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(stty.status()?.success())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing better can be tried.
        _ = self.stty("echo");
    }
}
