//! Who asks this node for changes, as the log keeps it.

use std::sync::atomic::Ordering;

use shoal_cluster::tls::Caller;
use shoal_configlog::{ProposeError, described_as, on_behalf_of};
use shoal_model::Revision;
use shoal_model::state::{ASKERS, Asker, COMPARING, Command};

use crate::admin::CATCH_UP_WAIT;
use crate::incoming::Connection;
use crate::node::{Node, now_ms};

/// Somebody who asks for something.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// Who, as was proven.
    pub by: String,
    /// What it may do; empty = who it is says so.
    pub role: String,
    /// An address, or the local socket and the user behind it.
    pub from: String,
}

impl Who {
    /// Whoever is at the other end of a connection.
    pub fn at(connection: &Connection) -> Self {
        let (by, role) = match &connection.caller {
            Some(Caller::Operator(operator)) => (operator.name.clone(), operator.role.to_string()),
            Some(Caller::Node(id)) => (id.to_string(), String::new()),
            None => (String::new(), String::new()),
        };
        Self { by, role, from: connection.from.to_string() }
    }

    /// Whoever has started this process.
    pub fn starts() -> Self {
        Self { by: "local".to_owned(), role: String::new(), from: "shoal run".to_owned() }
    }

    /// The member of this name, of its own accord.
    pub fn member(name: &str, from: String) -> Self {
        Self { by: format!("node {name}"), role: String::new(), from }
    }

    /// The bearer of the token whose public part this is, which allows `role`.
    pub fn with_token(id: &str, role: &str, from: String) -> Self {
        Self { by: format!("token {id}"), role: role.to_owned(), from }
    }
}

impl Node {
    /// `who` for the record, asking for `call`; `None` = not every member could read that yet.
    pub(crate) fn asker(&self, who: Who, call: &str) -> Option<Asker> {
        let Who { by, role, from } = who;
        self.keeps_record().then(|| Asker {
            by,
            role,
            from,
            node: self.id(),
            call: call.to_owned(),
            what: String::new(),
            request_id: self.new_request_id(),
            at_ms: now_ms(),
        })
    }

    /// Whatever `proposing` puts into the log, nobody has asked for: it is on the record as `call` of this node.
    pub(crate) fn of_its_own<F: Future>(&self, call: &str, proposing: F) -> impl Future<Output = F::Output> {
        on_behalf_of(self.asker(Who::member(&self.identity.name, String::new()), call), proposing)
    }

    /// Whoever has asked the running task gets `what`, which no command says: it is on the record with an entry that changes
    /// nothing.
    pub(crate) async fn put_on_record(&self, what: String) -> Result<(), ProposeError> {
        if !self.members_without(COMPARING).is_empty() {
            return Ok(());
        }
        let proposed = described_as(what, self.log.propose(Command::CompareStates)).await?;
        self.await_applied(proposed.index, Revision(0), CATCH_UP_WAIT).await;
        Ok(())
    }

    /// The log says who asks: since it began to, and before that once every member has said that it can read it.
    fn keeps_record(&self) -> bool {
        self.log.with_state(|state| state.audit.has_begun()) || self.members_without(ASKERS).is_empty()
    }

    /// An id that no other request has.
    pub(crate) fn new_request_id(&self) -> String {
        let number = self.requests_named.fetch_add(1, Ordering::Relaxed);
        format!("{}.{:x}.{number}", self.id(), now_ms())
    }
}
