//! Reading the command line: clap's complaints become one line and exit code 1.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use shoal_ctl::output::Format;
use shoal_ctl::{Exit, Failure};

use crate::cli::Cli;

/// The command line and the format that it asks for, or the code to exit with once help, version or a complaint is printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<(Cli, Option<Format>), Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    read(&arguments).map_err(|error| match error.kind() {
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
            let (why, verb) = complaint(error, &words);
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

fn read(arguments: &[impl AsRef<OsStr>]) -> Result<(Cli, Option<Format>), clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, format_in(&matches)))
}

/// The `-o` behind the verb, or else the one in front of it, whichever verb it is.
fn format_in(matches: &ArgMatches) -> Option<Format> {
    let behind = matches.subcommand().and_then(|(_, verb)| format_in(verb));
    behind.or_else(|| matches.try_get_one("output").ok().flatten().copied())
}

/// What is wrong, and the verb that was meant. One that stands behind another is looked for without it: `shoal drain`.
fn complaint(mut error: clap::Error, words: &[&str]) -> (String, String) {
    let verb = verb_of(words);
    if verb == "shoal"
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
    {
        let homes = homes_of(word);
        if !homes.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(homes));
        }
    }
    (reason(&error.render().to_string()), verb)
}

/// The verbs that `word` is the second word of.
fn homes_of(word: &str) -> Vec<String> {
    let command = Cli::command();
    let outer = command.get_subcommands().filter(|outer| outer.find_subcommand(word).is_some());
    outer.map(|outer| format!("{} {word}", outer.get_name())).collect()
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
        let error = read(&line.collect::<Vec<_>>()).unwrap_err();
        let (why, verb) = complaint(error, arguments);
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
            &["drain", "n1"],
            "error: unrecognized subcommand 'drain'; tip: some similar subcommands exist: 'node drain', 'region drain', \
             'zone drain'; try: shoal --help\n",
        );
        check(
            &["cordon", "n1"],
            "error: unrecognized subcommand 'cordon'; tip: a similar subcommand exists: 'node cordon'; try: shoal --help\n",
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
    fn the_format_behind_the_verb_goes_first() {
        let check = |line: &str, expected: Option<Format>| {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(read(&words).unwrap().1, expected, "{line}");
        };
        check("shoal status", None);
        check("shoal status -o json", Some(Format::Json));
        check("shoal -o json status", Some(Format::Json));
        check("shoal -o json status -o yaml", Some(Format::Yaml));
        check("shoal -o json node list", Some(Format::Json));
        check("shoal node list -o yaml", Some(Format::Yaml));
        check("shoal -o json config schema", Some(Format::Json));
        check("shoal context list -o yaml", Some(Format::Yaml));
        check("shoal validate -f x -o json", Some(Format::Json));
        check("shoal snapshot inspect x -o json", Some(Format::Json));
        check("shoal recover site --data-dir d x -o json", Some(Format::Json));
        check("shoal upgrade status -o json", Some(Format::Json));
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }
}
