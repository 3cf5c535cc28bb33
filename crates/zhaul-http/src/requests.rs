//! Answering what a connection has sent.

use std::io;

use crate::answer::Next;
use crate::attend::Event;
use crate::connection::{Connection, Input, Phase};
use crate::request::{self, Outcome};
use crate::worker::Worker;

/// Pipelined requests answered before other connections have their turn.
const REQUESTS_PER_TURN: u32 = 32;

impl Worker {
    /// Answers `received` and whatever else is there to be received, until the socket is empty
    /// (`None`) or something has to be waited for.
    pub(crate) fn answer_requests(
        &self,
        connection: &Connection,
        received: Option<&[u8]>,
    ) -> Option<Event> {
        let mut turn = REQUESTS_PER_TURN;
        let mut input = connection.input.borrow_mut();
        if let Some(received) = received {
            let batch = Some(self.batch());
            let event = self.answer_new(connection, received, &mut input, batch, &mut turn);
            if event.is_some() {
                return event;
            }
        }
        loop {
            if !input.bytes.is_empty() && !input.wants_more {
                let bytes = std::mem::take(&mut input.bytes);
                let (used, event) =
                    self.answer_all(connection, &bytes, &mut input, None, &mut turn);
                input.keep(bytes, used);
                if used > 0 && input.wants_more {
                    // Another request has begun.
                    connection.enter(Phase::Header);
                }
                if event.is_some() {
                    return event;
                }
                continue;
            }
            if input.bytes.is_empty() && self.is_draining() && connection.served.get() > 0 {
                return Some(Event::Leave);
            }
            let phase = if input.bytes.is_empty() {
                Phase::Idle
            } else {
                Phase::Header
            };
            if connection.phase() != phase {
                connection.enter(phase);
            }
            if !connection.stream.may_be_readable() {
                return None;
            }
            let mut buffer = self.reactor.receive_more.borrow_mut();
            let received = match connection.stream.try_recv(&mut buffer) {
                Ok(received @ 1..) => &buffer[..received],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(0) | Err(_) => return Some(Event::Close),
            };
            if !input.bytes.is_empty() {
                input.bytes.extend_from_slice(received);
                input.wants_more = false;
                continue;
            }
            let event = self.answer_new(connection, received, &mut input, None, &mut turn);
            if event.is_some() {
                return event;
            }
        }
    }

    /// Answers bytes that begin with a new request, and keeps what is left of them.
    fn answer_new(
        &self,
        connection: &Connection,
        received: &[u8],
        input: &mut Input,
        batch: Option<u64>,
        turn: &mut u32,
    ) -> Option<Event> {
        // The time limits run from the last sign of life.
        connection.enter(Phase::Idle);
        let (used, event) = self.answer_all(connection, received, input, batch, turn);
        input.bytes.extend_from_slice(&received[used..]);
        event
    }

    /// Answers the requests at the front of `bytes`. Says how many bytes were used up, and what
    /// keeps it from going on, if it is not just the end of the bytes.
    fn answer_all(
        &self,
        connection: &Connection,
        bytes: &[u8],
        input: &mut Input,
        batch: Option<u64>,
        turn: &mut u32,
    ) -> (usize, Option<Event>) {
        let mut used = 0;
        while used < bytes.len() {
            if *turn == 0 {
                return (used, Some(Event::Yield));
            }
            *turn -= 1;
            let rest = &bytes[used..];
            match request::parse(rest, &self.site.request_limits) {
                Outcome::Partial => {
                    input.wants_more = true;
                    return (used, None);
                }
                Outcome::Reject(reject) => {
                    let answer = self.reject(connection, rest, reject);
                    return (bytes.len(), Some(Event::Next(answer)));
                }
                Outcome::Complete { head, consumed } => {
                    let next = self.answer(connection, &head, &input.loaded, batch);
                    if !matches!(next, Next::Load(_)) {
                        used += consumed;
                        input.loaded.clear();
                    }
                    if !matches!(next, Next::Sent) {
                        return (used, Some(Event::Next(next)));
                    }
                }
            }
        }
        (used, None)
    }
}
