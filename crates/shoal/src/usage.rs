//! Reading the command line: clap's complaints become one line and exit code 1.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;
use clap::error::ErrorKind;
use shoal_ctl::Exit;

use crate::cli::Cli;

/// The command line, or the code to exit with once help, version or a complaint is printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone (`shoal --help | head -1`) is no error.
            _ = error.print();
            Exit::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            _ = error.print();
            Exit::Local
        }
        _ => {
            _ = io::stderr().lock().write_all(complaint(&error.render().to_string()).as_bytes());
            Exit::Local
        }
    })
}

/// clap's paragraphs as `error: <what>; try: <verb> --help`.
fn complaint(rendered: &str) -> String {
    let mut verb = "shoal".to_owned();
    let mut words = Vec::new();
    for line in rendered.lines() {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            let named = |word: &&str| !word.starts_with(['[', '<', '-']);
            verb = usage.split_whitespace().take_while(named).collect::<Vec<_>>().join(" ");
            break;
        }
        if !line.starts_with("For more information") {
            words.extend(line.split_whitespace());
        }
    }
    let text: String = words.join(" ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("{text}; try: {verb} --help\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &str) {
        let arguments = ["shoal"].into_iter().chain(arguments.iter().copied());
        let error = Cli::try_parse_from(arguments).unwrap_err();
        assert_eq!(complaint(&error.render().to_string()), expected);
    }

    #[test]
    fn complaints_are_one_line() {
        check(
            &["status", "--bogus"],
            "error: unexpected argument '--bogus' found; try: shoal status --help\n",
        );
        check(
            &["apply"],
            "error: the following required arguments were not provided: --file <FILE|DIR|->; try: shoal apply --help\n",
        );
        check(
            &["statsu"],
            "error: unrecognized subcommand 'statsu' tip: a similar subcommand exists: 'status'; try: shoal --help\n",
        );
        check(
            &["apply", "-f", "x", "--timeout", "5"],
            "error: invalid value '5' for '--timeout <TIME>': \"5\" has no unit; write it as \"5s\" or \"5ms\"; \
             try: shoal --help\n",
        );
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
