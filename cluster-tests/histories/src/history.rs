//! What was asked of the register, and what was answered, in the order in which it happened.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What somebody asks of the register. No two writes write the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To become `value`; with `over`, only if that is the revision then.
    Write {
        /// What it becomes.
        value: u64,
        /// The revision it replaces; `None` = whichever it is.
        over: Option<u64>,
    },
    /// What it is.
    Read,
}

/// What the answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write has made this revision.
    Wrote {
        /// Which.
        revision: u64,
    },
    /// The register is this.
    Read {
        /// The revision that made it so.
        revision: u64,
        /// What it is.
        value: u64,
    },
    /// Certainly nothing was done, nor ever will be.
    Nothing,
}

/// One thing that was asked. Times are places in the order of all calls and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub asked: Asked,
    /// When.
    pub called: u64,
    /// What was answered and when; `None` = it is not known what became of it.
    pub answered: Option<(u64, Answer)>,
}

/// Everything that was asked of a register.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    /// The revision and value before all of them.
    pub start: (u64, u64),
    /// In the order in which they were called.
    pub all: Vec<Operation>,
}

/// Operations while they happen. Calls are noted before they are made and answers after they have come, so what the order
/// says of two of them is so.
#[derive(Debug)]
pub struct History {
    start: (u64, u64),
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    clock: u64,
    all: Vec<Operation>,
}

/// An operation that was called.
#[derive(Debug)]
#[must_use = "what is not answered counts as unknown"]
pub struct Ticket(usize);

impl History {
    /// Of a register that is at `revision`, with this `value`.
    pub fn since(revision: u64, value: u64) -> Self {
        Self { start: (revision, value), noted: Mutex::default() }
    }

    /// `asked` is about to be asked.
    pub fn call(&self, asked: Asked) -> Ticket {
        let mut noted = self.noted();
        noted.clock += 1;
        let called = noted.clock;
        noted.all.push(Operation { asked, called, answered: None });
        Ticket(noted.all.len() - 1)
    }

    /// It was answered. Whoever does not know what became of it drops the ticket instead.
    pub fn answer(&self, ticket: Ticket, answer: Answer) {
        let mut noted = self.noted();
        noted.clock += 1;
        noted.all[ticket.0].answered = Some((noted.clock, answer));
    }

    /// All that has happened so far.
    pub fn operations(&self) -> Operations {
        Operations { start: self.start, all: self.noted().all.clone() }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
