//! The sessions of a worker, by the names that epoll, timers and queues know them by.
//!
//! A name is a place in the slab and a generation: what comes late for a session that has ended is not
//! taken for the one that has its place now. The lowest bit tells a session's two sides apart.

use std::ops::{Index, IndexMut};

use slab::Slab;
use zhaul::relay::Side;

use super::session::Session;

/// All sessions of one worker.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    entries: Slab<Session>,
    /// Goes up with each session.
    generation: u32,
}

impl Sessions {
    /// Puts a session there that knows its name, and says its key.
    pub(super) fn insert(&mut self, make: impl FnOnce(u64) -> Session) -> usize {
        self.generation = (self.generation + 1) % (u32::MAX - 1);
        let entry = self.entries.vacant_entry();
        let key = entry.key();
        entry.insert(make(u64::from(self.generation) << 32 | (key as u64) << 1));
        key
    }

    pub(super) fn remove(&mut self, key: usize) -> Session {
        self.entries.remove(key)
    }

    /// The key of the session with this name, if it is still there.
    pub(super) fn find(&self, name: u64) -> Option<usize> {
        let key = (name as u32 >> 1) as usize;
        let session = self.entries.get(key)?;
        (session.name == name & !1).then_some(key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Session)> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.entries.iter_mut().map(|(_, session)| session)
    }
}

impl Index<usize> for Sessions {
    type Output = Session;

    fn index(&self, key: usize) -> &Session {
        &self.entries[key]
    }
}

impl IndexMut<usize> for Sessions {
    fn index_mut(&mut self, key: usize) -> &mut Session {
        &mut self.entries[key]
    }
}

/// Which side of its session a name is about.
pub(super) const fn side_of(name: u64) -> Side {
    if name & 1 == 0 { Side::A } else { Side::B }
}

/// What the server's side of a session is called.
pub(super) const fn server_side(name: u64) -> u64 {
    name | 1
}
