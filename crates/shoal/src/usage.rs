//! Reading the command line: clap's complaints become one line and exit code 1.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use shoal_ctl::{Exit, Failure};

use crate::cli::Cli;

/// The command line, or the code to exit with once help, version or a complaint is printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    Cli::try_parse_from(&arguments).map_err(|error| match error.kind() {
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
            let words: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
            let (why, verb) = (reason(&error.render().to_string()), verb_of(&words));
            let text = if wants_json(&words) {
                let hint = format!("{verb} --help");
                Failure::local("usage", why).try_command(hint).to_json()
            } else {
                format!("error: {why}; try: {verb} --help\n")
            };
            _ = io::stderr().lock().write_all(text.as_bytes());
            Exit::Local
        }
    })
}

/// clap's paragraphs in one line, up to where the usage begins.
fn reason(rendered: &str) -> String {
    let told = |line: &&str| !line.starts_with("Usage: ");
    let lines = rendered.lines().take_while(told).filter(|line| !line.starts_with("For more information"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let text = words.join(" ").replace(" tip: ", "; tip: ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The verb that was meant, as far as there is one: `shoal cache purge`.
fn verb_of(words: &[&str]) -> String {
    let mut verb = "shoal".to_owned();
    let mut command = Cli::command();
    for word in words {
        if let Some(inner) = command.find_subcommand(word) {
            verb = format!("{verb} {word}");
            command = inner.clone();
        }
    }
    verb
}

/// Errors are written as the answer would have been.
fn wants_json(words: &[&str]) -> bool {
    let pairs = words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]));
    pairs || words.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &str) {
        let line = ["shoal"].into_iter().chain(arguments.iter().copied());
        let error = Cli::try_parse_from(line).unwrap_err();
        let (why, verb) = (reason(&error.render().to_string()), verb_of(arguments));
        assert_eq!(format!("error: {why}; try: {verb} --help\n"), expected);
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
            "error: unrecognized subcommand 'statsu'; tip: a similar subcommand exists: 'status'; try: shoal --help\n",
        );
        check(
            &["apply", "-f", "x", "--timeout", "5"],
            "error: invalid value '5' for '--timeout <TIME>': \"5\" has no unit; write it as \"5s\" or \"5ms\"; \
             try: shoal apply --help\n",
        );
        check(
            &["cache", "purge", "--tog", "x"],
            "error: unexpected argument '--tog' found; tip: a similar argument exists: '--tag'; \
             try: shoal cache purge --help\n",
        );
    }

    #[test]
    fn json_is_wanted_for_errors_too() {
        for words in [&["status", "-o", "json"][..], &["-ojson", "x"], &["x", "--output=json"]] {
            assert!(wants_json(words), "{words:?}");
        }
        for words in [&["status"][..], &["-o", "yaml"], &["apply", "-f", "json"]] {
            assert!(!wants_json(words), "{words:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }
}
