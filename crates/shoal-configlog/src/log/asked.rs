//! On whose behalf a task proposes. It goes with the task, and is not handed from call to call: what is proposed while somebody
//! is answered is on the record, whoever adds a call and whatever it does.

use std::future::Future;

use shoal_model::state::{Asker, Command, on_record};
use tokio::task::futures::TaskLocalFuture;

use super::ConfigLog;

tokio::task_local! {
    static ASKER: Option<Asker>;
}

/// Whatever `answering` proposes, `asker` has asked for. Tasks that it spawns propose of their own accord.
pub fn on_behalf_of<F: Future>(asker: Option<Asker>, answering: F) -> TaskLocalFuture<Option<Asker>, F> {
    ASKER.scope(asker, answering)
}

/// Whatever `answering` proposes is on the record as `what`, if somebody has asked for it.
pub fn described_as<F: Future>(what: String, answering: F) -> TaskLocalFuture<Option<Asker>, F> {
    let asker = asker().map(|asker| Asker { what, ..asker });
    ASKER.scope(asker, answering)
}

/// Who has asked the running task.
pub(super) fn asker() -> Option<Asker> {
    ASKER.try_get().ok().flatten()
}

impl ConfigLog {
    /// `command` on behalf of whoever has asked the running task.
    pub(super) fn on_record(&self, command: Command) -> Command {
        match asker() {
            Some(asker) => self.with_state(|state| on_record(command, asker, state)),
            None => command,
        }
    }
}
