//! Of which hosts something is owed (see [`crate::purge_owed`]) that could not be forgotten at once, in the data directory.
//!
//! What a process owes is owed by the next one, however the first one ended: nobody else knows that an origin has changed
//! something, and whoever was to wait for it may have been answered. The next one knows only whose it was: all of that host
//! is forgotten. Written, not synced: what is owed is lost with the machine, as is what the cache has noted on disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file.
const NAME: &str = "owed-purges";
/// A line of it where hosts cannot be told apart any more.
const EVERYTHING: &str = "everything";

/// To whom something is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Debtor {
    /// As scopes have it.
    Host(u64),
    /// Anybody.
    Everybody,
}

/// The file, and what is in it.
#[derive(Debug)]
pub struct Debts {
    path: PathBuf,
    noted: BTreeSet<Debtor>,
}

impl Debts {
    /// Those that the process before has left in `data_dir`. What cannot be read is taken for everybody's.
    pub fn in_dir(data_dir: &Path) -> Self {
        let path = data_dir.join(NAME);
        let noted = match fs::read_to_string(&path) {
            Ok(text) => text.split_inclusive('\n').map(read).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot read whose purges are owed: everything is purged");
                BTreeSet::from([Debtor::Everybody])
            }
        };
        Self { path, noted }
    }

    /// All of them.
    pub const fn noted(&self) -> &BTreeSet<Debtor> {
        &self.noted
    }

    /// Something is owed to `debtors`, too.
    pub fn note(&mut self, debtors: impl IntoIterator<Item = Debtor>) {
        let mut text = String::new();
        for debtor in debtors.into_iter().filter(|debtor| self.noted.insert(*debtor)) {
            text.push_str(&line(debtor));
        }
        if text.is_empty() {
            return;
        }
        let file = File::options().append(true).create(true).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            let path = self.path.display();
            tracing::error!(%path, %error, "cannot write down whose purges are owed: they would be lost with this process");
        }
    }

    /// Nothing is owed any more.
    pub fn settle(&mut self) {
        if self.noted.is_empty() {
            return;
        }
        self.noted.clear();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot take away what was owed: it is purged again after the next start");
            }
            _ => tracing::info!("what origins have changed is forgotten"),
        }
    }
}

fn line(debtor: Debtor) -> String {
    match debtor {
        Debtor::Host(host) => format!("{host:016x}\n"),
        Debtor::Everybody => format!("{EVERYTHING}\n"),
    }
}

/// One that is cut short may be anybody's.
fn read(line: &str) -> Debtor {
    let host = line.strip_suffix('\n').filter(|host| host.len() == 16);
    let host = host.and_then(|host| u64::from_str_radix(host, 16).ok());
    host.map_or(Debtor::Everybody, Debtor::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_to_the_next_process_until_it_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Debts::in_dir(directory.path());
        let noted =
            |debtors: &[Debtor]| assert_eq!(*open().noted(), BTreeSet::from_iter(debtors.iter().copied()));
        let (one, other) = (Debtor::Host(7), Debtor::Host(u64::MAX));
        noted(&[]);
        let mut debts = open();
        debts.note([one, one]);
        debts.note([one]);
        noted(&[one]);
        debts.note([other, Debtor::Everybody]);
        noted(&[one, other, Debtor::Everybody]);
        assert_eq!(fs::read_to_string(directory.path().join(NAME)).unwrap().lines().count(), 3);
        open().settle();
        noted(&[]);
        debts.settle();
        debts.note([other]);
        noted(&[other]);
    }

    #[test]
    fn what_cannot_be_read_is_everybodys() {
        let check = |text: &[u8], expected: &[Debtor]| {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(NAME), text).unwrap();
            let expected = BTreeSet::from_iter(expected.iter().copied());
            assert_eq!(*Debts::in_dir(directory.path()).noted(), expected, "{text:?}");
        };
        let whole = line(Debtor::Host(9));
        check(whole.as_bytes(), &[Debtor::Host(9)]);
        check(&whole.as_bytes()[..16], &[Debtor::Everybody]);
        check(b"\n", &[Debtor::Everybody]);
        check(&[0xff, b'\n'], &[Debtor::Everybody]);
        check(b"", &[]);
    }
}
