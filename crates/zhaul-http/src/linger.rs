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

use crate::connection::{Connection, Phase};
use crate::worker::Worker;

/// What a client may say after its last answer: a request body of the size that would be read off
/// in any case, and requests sent ahead.
const LINGER_BYTES: u64 = 2 * 1024 * 1024;

impl Worker {
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
