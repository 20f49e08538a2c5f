//! What goes to the terminal: a format, a style, and a stdout that may be closed at any time.

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::failure::Failure;

/// Values longer than this are folded in YAML; tokens and hashes are not, so that they can be copied.
const MAX_LINE_CHARS: usize = 4096;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The answer as JSON, names as in the `.proto` file.
    Json,
    /// The same as YAML.
    Yaml,
}

/// What a renderer may know of the terminal and the time.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Additions green, removals red.
    pub colour: bool,
    /// Unix seconds.
    pub now: u64,
}

impl Style {
    /// Colour only on a terminal, and not when `NO_COLOR` says no (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { colour: io::stdout().is_terminal() && !refused, now }
    }
}

/// Prints `answer`: as data, or by `render` for people.
pub fn print<T: Serialize>(
    format: Format,
    answer: &T,
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => render(answer),
        Format::Json => to_json(answer)?,
        Format::Yaml => to_yaml(answer)?,
    };
    write_stdout(&text)
}

/// `answer` as indented JSON.
pub fn to_json<T: Serialize>(answer: &T) -> Result<String, Failure> {
    let text =
        serde_json::to_string_pretty(answer).map_err(|error| Failure::local("print as json", error))?;
    Ok(text + "\n")
}

/// The same on one line: one of many documents.
pub fn to_json_line<T: Serialize>(answer: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(answer).map_err(|error| Failure::local("print as json", error))?;
    Ok(text + "\n")
}

/// `answer` as YAML.
pub fn to_yaml<T: Serialize>(answer: &T) -> Result<String, Failure> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: MAX_LINE_CHARS };
    let text = serde_saphyr::to_string_with_options(answer, options);
    let mut text = text.map_err(|error| Failure::local("print as yaml", error))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Tells people something beside the answer, on stderr, where no script takes it for one.
pub fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// The same without a word in front: `text` says what it is.
pub fn note(text: &str) {
    // Nobody may be there to read it.
    _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes to stdout; a reader that has gone (`shoal get | head`) is no error.
pub fn write_stdout(text: &str) -> Result<(), Failure> {
    print_line(text).map(drop)
}

/// The same for one of many: whether somebody still reads them.
pub fn print_line(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::local("write to stdout", error)),
    }
}

/// How wide the terminal is that shows what is written to stdout; `None` = it is none, or does not say.
pub fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Somebody reads what is written to stdout, as far as one can tell without writing.
pub fn is_read() -> bool {
    let stdout = io::stdout();
    let mut looks = [PollFd::new(&stdout, PollFlags::empty())];
    let known = poll(&mut looks, Some(&Timespec::default()));
    known.is_err() || !looks[0].revents().contains(PollFlags::ERR)
}
