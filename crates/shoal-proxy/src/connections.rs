//! The downstream connections of one worker, so that they can be reviewed and ended.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use shoal_policy::eviction::{Candidate, evicted, share};
use tokio_util::sync::CancellationToken;

use crate::listener::{Connection, ConnectionState, Listener, Order, counted_as};
use crate::metrics::Limit;

/// The connections of a worker. Tunnels count as connections, too.
#[derive(Default)]
pub(crate) struct Connections {
    next: Cell<u64>,
    open: RefCell<FxHashMap<u64, Rc<Connection>>>,
    tunnels: Cell<usize>,
    /// Cancelled when tunnels are cut off, and replaced then.
    cut: RefCell<CancellationToken>,
    /// The node is on its way out, or out of service.
    retiring: Cell<bool>,
}

impl Connections {
    /// Registers a connection until the answer is dropped.
    pub(crate) fn register(self: &Rc<Self>, connection: &Rc<Connection>) -> impl Drop + use<> {
        let key = self.next.get();
        self.next.set(key + 1);
        self.open.borrow_mut().insert(key, connection.clone());
        if self.retiring.get() {
            connection.state.give(Order::Retire);
        }
        Registered { connections: self.clone(), key }
    }

    /// Counts a tunnel until the answer is dropped.
    pub(crate) fn register_tunnel(self: &Rc<Self>) -> impl Drop + use<> {
        self.tunnels.set(self.tunnels.get() + 1);
        Tunnel(self.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len() + self.tunnels.get()
    }

    /// From now on every answer is the last one of its connection, also on connections that are still to come.
    pub(crate) fn retire_all(&self) {
        self.retiring.set(true);
        self.states().iter().for_each(|state| state.give(Order::Retire));
    }

    /// Connections that are still to come may stay; those that are there end with their next answer all the same.
    pub(crate) fn resume(&self) {
        self.retiring.set(false);
    }

    /// All shall end.
    pub(crate) fn finish_all(&self) {
        self.states().iter().for_each(|state| state.give(Order::Finish));
    }

    /// All end now, and so do tunnels.
    pub(crate) fn cut_all(&self) {
        self.states().iter().for_each(|state| state.give(Order::Abort));
        self.cut.take().cancel();
    }

    /// When the tunnels that begin now are cut off.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.cut.borrow().clone()
    }

    /// The connections of one listener shall end.
    pub(crate) fn finish(&self, listener: &Arc<Listener>) {
        let open = self.open.borrow();
        let of_listener =
            open.values().filter(|connection| Arc::ptr_eq(&connection.listener.shared, listener));
        let states: Vec<_> = of_listener.map(|connection| connection.state.clone()).collect();
        drop(open);
        states.iter().for_each(|state| state.give(Order::Finish));
    }

    /// Looks for those that have overstayed.
    pub(crate) fn review(&self, now_ms: u64) {
        for connection in self.open.borrow().values() {
            connection.state.review(now_ms, &connection.settings.view.limits);
            if connection.listener.shared.is_removed() {
                connection.state.give(Order::Finish);
            }
        }
    }

    /// Ends idle connections of whoever has the most when there is little room left for others: all workers have `open`
    /// of `most`, on `listener` or on all of them.
    pub(crate) fn make_room(&self, open: usize, most: usize, listener: Option<&Arc<Listener>>) {
        if share(open, most, open) == 0 {
            return;
        }
        let connections = self.open.borrow();
        let is_of = |connection: &&Rc<Connection>| {
            listener.is_none_or(|listener| Arc::ptr_eq(&connection.listener.shared, listener))
        };
        let candidates: Vec<_> = connections
            .values()
            .filter(is_of)
            .map(|connection| Candidate {
                address: counted_as(connection.caller.address),
                idle_since_ms: connection.state.idle_since_ms(),
                key: connection.state.clone(),
            })
            .collect();
        drop(connections);
        let count = share(open, most, candidates.len());
        for state in evicted(candidates, count) {
            state.end(Limit::Crowded, Order::Finish);
        }
    }

    fn states(&self) -> Vec<Rc<ConnectionState>> {
        self.open.borrow().values().map(|connection| connection.state.clone()).collect()
    }
}

struct Registered {
    connections: Rc<Connections>,
    key: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.key);
    }
}

struct Tunnel(Rc<Connections>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let tunnels = &self.0.tunnels;
        tunnels.set(tunnels.get() - 1);
    }
}
