//! An answer on its way, and what comes after a request was looked at.

use std::io;

use crate::answer::directory::{Listing, PageMemory};
use crate::files::lookup::Load;
use crate::log::lines::Lines;
use crate::log::record::{Outcome, Record};
use crate::message::body::BodyDiscard;
use crate::run::connection::Connection;
use crate::wire::h1::{Framing, Message};

/// What keeps a connection from just waiting for its next request.
pub(crate) enum Next {
    /// The client is gone, or nothing more is to be said to it.
    Close,
    /// Nothing more will be said on this connection, which the client is told.
    Leave,
    /// Others have waited long enough.
    Yield,
    /// The path has to be looked up where a disk may be waited for; then the request is to be
    /// parsed again.
    Load(Load),
    /// A directory has to be read for this answer.
    List(Box<(Listing, Exchange)>),
    /// The rest of the answer has to be sent.
    Send(Box<Outgoing>),
}

/// What remains of a request until it is answered.
pub(crate) struct Exchange {
    pub(crate) framing: Framing,
    /// What of the request is still to be read off before the next one.
    pub(crate) request_body: Option<BodyDiscard>,
    pub(crate) record: Option<Record>,
}

impl Exchange {
    /// All of it, for an answer that takes the place of another.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            framing: self.framing,
            request_body: self.request_body.take(),
            record: self.record.take(),
        }
    }
}

/// An answer on its way.
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    /// How much of the message's bytes is sent already.
    pub(crate) sent: usize,
    pub(crate) exchange: Exchange,
    /// The round in which its file was found unchanged.
    pub(crate) batch: u64,
    /// The memory that a listing takes.
    pub(crate) pages: Option<PageMemory>,
}

impl Outgoing {
    pub(crate) fn new(message: Message, exchange: Exchange, batch: u64) -> Self {
        Self {
            message,
            sent: 0,
            exchange,
            batch,
            pages: None,
        }
    }

    /// Sends a message that is all in memory at once, if the socket takes it, and if nothing of its
    /// request is left to be read. `None` if the connection then just goes on.
    pub(crate) fn send_now(mut self, connection: &Connection, lines: &Lines) -> Option<Next> {
        let Exchange {
            framing,
            request_body,
            record,
        } = &self.exchange;
        if !self.message.rest.is_none() || request_body.is_some() {
            return Some(Next::Send(Box::new(self)));
        }
        let Message { bytes, status, .. } = &self.message;
        // The last answer goes out with the FIN behind it, in one segment.
        let more = !framing.keep_alive;
        match connection.stream.try_send(bytes, more) {
            Ok(sent) => {
                connection.add_sent(sent);
                self.sent = sent;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                if let Some(record) = record {
                    let outcome = Outcome {
                        complete: false,
                        ..Outcome::from_memory(*status, 0, None)
                    };
                    lines.write(record, connection.remote(), &outcome);
                }
                return Some(Next::Close);
            }
        }
        if self.sent < bytes.len() {
            return Some(Next::Send(Box::new(self)));
        }
        connection.served.set(connection.served.get() + 1);
        if let Some(record) = record {
            let length = (self.sent - self.message.body_at) as u64;
            let outcome = Outcome::from_memory(*status, length, self.message.encoding);
            lines.write(record, connection.remote(), &outcome);
        }
        (!framing.keep_alive).then_some(Next::Leave)
    }
}
