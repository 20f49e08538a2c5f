//! Yes or no, asked on the terminal.

use std::io::{self, IsTerminal, Write};

/// Somebody is there who can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Shows `text` and asks on the terminal; only a word that begins with y is a yes.
pub(super) fn ask(text: &str, question: &str) -> bool {
    // Who cannot be shown the question does not answer it with yes.
    let mut stderr = io::stderr().lock();
    let asked = write!(stderr, "{text}{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    asked.and_then(|()| io::stdin().read_line(&mut answer)).is_ok()
        && answer.trim().to_lowercase().starts_with('y')
}
