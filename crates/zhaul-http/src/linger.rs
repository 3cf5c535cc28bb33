//! Closing in stages (RFC 9112 §9.6).
//!
//! Closing a socket with bytes unread, or one to which bytes come later, makes the kernel answer
//! with a reset, and that destroys what the client has not received of its answer yet. A stray CRLF
//! behind a request, a request sent ahead or a body that nobody wanted is enough. So whatever
//! answer ends a connection is followed by a FIN, and what the client still says is thrown away,
//! until it has closed its side too or one of two bounds is reached: [`LINGER_BYTES`], and
//! [`LINGER_MS`] after the client's kernel has acknowledged the answer.
//!
//! [`LINGER_MS`]: crate::connection::LINGER_MS

use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use crate::clock::Clock;
use crate::connection::{Connection, Phase};
use crate::reactor::Leaving;
use crate::worker::Worker;

/// What a client may say after its last answer: a request body of the size that would be read off
/// in any case, and requests sent ahead.
const LINGER_BYTES: u64 = 2 * 1024 * 1024;

/// Most clients that ask for the end close their side as soon as they have the answer.
pub(crate) const LEAVING: Duration = Duration::from_millis(2);

impl Worker {
    /// Tells the client that nothing more will be said. Whoever is not registered with epoll yet is
    /// not registered for its last byte either, but looked at a moment later, when most have closed
    /// their side: that costs one call instead of two and an event.
    pub(crate) fn ask_to_leave(&self, key: usize, connection: &Rc<Connection>) {
        if connection.stream.is_watched() {
            if !self.begin_to_linger(connection) {
                self.end(key);
            }
            return;
        }
        connection.stream.shutdown_send();
        connection.enter(Phase::Lingering);
        self.reactor.leaving.borrow_mut().push_back(Leaving {
            key,
            connection: Rc::clone(connection),
            since_ms: Clock::now_ms(),
        });
    }

    /// Closes the connections of those who left, and registers those who take longer.
    pub(crate) fn see_who_left(&self) {
        if self.reactor.leaving.borrow().is_empty() {
            return;
        }
        let now_ms = Clock::now_ms();
        let is_due = |leaving: &mut Leaving| leaving.since_ms < now_ms;
        while let Some(Leaving {
            key, connection, ..
        }) = self.next_to_leave(is_due)
        {
            // It may have been ended for another reason, and another have its place.
            let is_there = self
                .connections
                .borrow()
                .get(key)
                .is_some_and(|there| Rc::ptr_eq(there, &connection));
            if !is_there || connection.phase() != Phase::Lingering {
                continue;
            }
            // Nobody reported it, so it is asked.
            connection.stream.note(EventFlags::IN);
            if self.linger(&connection) {
                self.watch(key, &connection);
            } else {
                self.end(key);
            }
        }
    }

    fn next_to_leave(&self, is_due: impl FnOnce(&mut Leaving) -> bool) -> Option<Leaving> {
        self.reactor.leaving.borrow_mut().pop_front_if(is_due)
    }

    /// Tells the client that nothing more will be said; false if it has closed its side already.
    pub(crate) fn begin_to_linger(&self, connection: &Connection) -> bool {
        connection.stream.shutdown_send();
        connection.enter(Phase::Lingering);
        self.linger(connection)
    }

    /// Throws away what a lingering connection has sent; false if it is to be closed.
    pub(crate) fn linger(&self, connection: &Connection) -> bool {
        let mut buffer = self.reactor.receive_more.borrow_mut();
        loop {
            match connection.stream.try_recv(&mut buffer) {
                Ok(0) => return false,
                Ok(received) => {
                    let discarded = connection.discarded.get() + received as u64;
                    connection.discarded.set(discarded);
                    if discarded > LINGER_BYTES {
                        return false;
                    }
                }
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}
