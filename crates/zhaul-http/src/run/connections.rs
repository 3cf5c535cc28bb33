//! A worker's connections.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;
use tokio::sync::Notify;
use zhaul_service::Peer;

use crate::run::accept::Accepted;
use crate::run::connection::Connection;
use crate::wire::stream::Stream;

/// What is open, by the key that epoll knows it by.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: RefCell<Slab<Rc<Connection>>>,
    one_less: Notify,
}

impl Connections {
    /// Makes a place for a new connection, to be reported by `epoll`, and sent on at `rate` bytes a
    /// second at most.
    pub(crate) fn adopt(
        &self,
        accepted: Accepted,
        epoll: &Arc<OwnedFd>,
        rate: u64,
    ) -> (usize, Rc<Connection>) {
        let Accepted {
            fd,
            peer,
            admission,
        } = accepted;
        let is_tcp = matches!(peer, Peer::Ip(_));
        let mut open = self.open.borrow_mut();
        let entry = open.vacant_entry();
        let key = entry.key();
        let stream = Stream::new(fd, is_tcp, epoll, key as u64);
        let rate = NonZeroU64::new(rate);
        if let Some(rate) = rate
            && let Err(e) = stream.set_max_rate(rate)
        {
            tracing::warn!("the kernel cannot limit the rate of a connection: {e}");
        }
        let connection = Rc::new(Connection::new(stream, rate, peer, admission));
        entry.insert(Rc::clone(&connection));
        (key, connection)
    }

    pub(crate) fn get(&self, key: usize) -> Option<Rc<Connection>> {
        self.open.borrow().get(key).map(Rc::clone)
    }

    /// Whether `connection` is still the one that `key` stands for.
    pub(crate) fn holds(&self, key: usize, connection: &Rc<Connection>) -> bool {
        let open = self.open.borrow();
        open.get(key)
            .is_some_and(|there| Rc::ptr_eq(there, connection))
    }

    /// Ends a connection: at once, or when the client has acknowledged all that was said to it. Until
    /// then it counts against every limit, as its bytes do in the kernel.
    pub(crate) fn end(&self, key: usize) {
        if let Some(connection) = self.get(key) {
            let undelivered = connection.is_undelivered();
            if undelivered && connection.stream.watch().is_ok() {
                return connection.depart();
            }
        }
        self.remove(key);
    }

    /// Forgets a connection, and closes it.
    pub(crate) fn remove(&self, key: usize) {
        let removed = self.open.borrow_mut().try_remove(key);
        drop(removed);
        self.one_less.notify_one();
    }

    /// Waits until a connection was removed.
    pub(crate) async fn one_less(&self) {
        self.one_less.notified().await;
    }

    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Those for which `wanted` has something, with what it has.
    pub(crate) fn filter<T>(
        &self,
        mut wanted: impl FnMut(&Rc<Connection>) -> Option<T>,
    ) -> Vec<(usize, Rc<Connection>, T)> {
        let open = self.open.borrow();
        let chosen = open.iter().filter_map(|(key, connection)| {
            wanted(connection).map(|what| (key, Rc::clone(connection), what))
        });
        chosen.collect()
    }
}
