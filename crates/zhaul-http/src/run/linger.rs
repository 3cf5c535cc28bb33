//! Closing in stages (RFC 9112 §9.6).
//!
//! Closing a socket with bytes unread, or one to which bytes come later, makes the kernel answer
//! with a reset, and that destroys what the client has not received of its answer yet. A stray CRLF
//! behind a request, a request sent ahead or a body that nobody wanted is enough. So whatever
//! answer ends a connection is followed by a FIN, and what the client still says is thrown away,
//! until it has closed its side too or one of two bounds is reached: [`LINGER_BYTES`], and
//! [`LINGER_MS`] after the client's kernel has acknowledged the answer.
//!
//! [`LINGER_MS`]: crate::run::connection::LINGER_MS

use std::io;
use std::rc::Rc;

use rustix::event::epoll::EventFlags;

use crate::host::clock::Clock;
use crate::run::connection::{Connection, Phase};
use crate::run::reactor::Leaving;
use crate::run::worker::Worker;

/// What a client may say after its last answer: a request body of the size that would be read off
/// in any case, and requests sent ahead.
const LINGER_BYTES: u64 = 2 * 1024 * 1024;

/// Tells the client that nothing more will be said. Whoever is not registered with epoll yet is
/// not registered for its last byte either, but looked at a moment later, when most have closed
/// their side: that costs one call instead of two and an event.
pub(crate) fn ask_to_leave(worker: &Worker, key: usize, connection: &Rc<Connection>) {
    if connection.stream.is_watched() {
        if !begin_to_linger(connection, &mut worker.reactor.receive_more.borrow_mut()) {
            worker.connections.end(key);
        }
        return;
    }
    connection.stream.shutdown_send();
    connection.enter(Phase::Lingering);
    worker.reactor.leaving.borrow_mut().push_back(Leaving {
        key,
        connection: Rc::clone(connection),
        since_ms: Clock::now_ms(),
    });
}

/// Closes the connections of those who left, and registers those who take longer.
pub(crate) fn see_who_left(worker: &Worker) {
    if worker.reactor.leaving.borrow().is_empty() {
        return;
    }
    let now_ms = Clock::now_ms();
    while let Some(Leaving {
        key, connection, ..
    }) = worker.reactor.next_to_leave(now_ms)
    {
        // It may have been ended for another reason, and another have its place.
        let is_there = worker.connections.holds(key, &connection);
        if !is_there || connection.phase() != Phase::Lingering {
            continue;
        }
        // Nobody reported it, so it is asked.
        connection.stream.note(EventFlags::IN);
        let lingers = linger(&connection, &mut worker.reactor.receive_more.borrow_mut());
        if lingers {
            worker.watch(key, &connection);
        } else {
            worker.connections.end(key);
        }
    }
}

/// Tells the client that nothing more will be said; false if it has closed its side already.
/// `buffer` is for what is thrown away.
pub(crate) fn begin_to_linger(connection: &Connection, buffer: &mut [u8]) -> bool {
    connection.stream.shutdown_send();
    connection.enter(Phase::Lingering);
    linger(connection, buffer)
}

/// Throws away what a lingering connection has sent; false if it is to be closed.
pub(crate) fn linger(connection: &Connection, buffer: &mut [u8]) -> bool {
    loop {
        match connection.stream.try_recv(buffer) {
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
