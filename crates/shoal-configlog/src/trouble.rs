//! Why this node can write or apply nothing any more, in words for an operator, kept where everybody can look.

use std::io::{self, ErrorKind};
use std::sync::{Arc, OnceLock};

use shoal_model::state::UnknownCommand;

/// What came first; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<OnceLock<Told>>);

#[derive(Debug)]
struct Told {
    text: String,
    is_of_version: bool,
}

impl Trouble {
    /// A write has failed for good. The first reason stays: what comes later follows from it.
    pub fn note(&self, error: &io::Error) {
        let advice = advice(error);
        self.tell(format!("its log cannot be written: {}; {advice}", in_words(error)), false);
    }

    /// What another version has written cannot be applied by this one: it goes no further.
    pub fn stop(&self, why: &UnknownCommand) {
        self.tell(why.to_string(), true);
    }

    fn tell(&self, text: String, is_of_version: bool) {
        if self.0.set(Told { text: text.clone(), is_of_version }).is_ok() {
            tracing::error!("this node takes no further part in decisions: {text}");
        }
    }

    /// What went wrong, and what to do.
    pub fn text(&self) -> Option<String> {
        self.0.get().map(|told| told.text.clone())
    }

    /// The same if all that is wrong is the version of this process.
    pub fn of_version(&self) -> Option<String> {
        self.0.get().filter(|told| told.is_of_version).map(|told| told.text.clone())
    }
}

/// An error of the database, as that of the system if it is one.
pub fn io_error(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Nothing is damaged: there is only no room.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn advice(error: &io::Error) -> &'static str {
    match is_out_of_space(error) {
        true => "free space for its data directory, then restart it",
        false => {
            "restart it; if that does not help, move its data directory away and join again with a new token"
        }
    }
}

/// The system's text without its number, to go on in a sentence.
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let is_word = text.chars().nth(1).is_some_and(char::is_lowercase);
    let mut letters = text.chars();
    match letters.next().filter(|_| is_word) {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_happened_and_what_to_do() {
        let check = |error: io::Error, expected: &str| {
            let trouble = Trouble::default();
            trouble.note(&error);
            assert_eq!(trouble.text().as_deref(), Some(expected));
            trouble.note(&io::Error::other("something else"));
            assert_eq!(trouble.text().as_deref(), Some(expected), "the first reason stays");
        };
        let full = || io::Error::from_raw_os_error(28);
        let expected = "its log cannot be written: no space left on device; \
                        free space for its data directory, then restart it";
        check(full(), expected);
        check(io_error(redb::StorageError::Io(full())), expected);
        check(
            io_error(redb::StorageError::Corrupted("page 7".to_owned())),
            "its log cannot be written: DB corrupted: page 7; restart it; if that does not help, move its data \
             directory away and join again with a new token",
        );
        assert_eq!(Trouble::default().text(), None);
    }
}
