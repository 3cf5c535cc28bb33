//! Answering what a connection has sent.

use std::io;
use std::rc::Rc;

use crate::answer::decide::{Decision, decide};
use crate::answer::failure;
use crate::answer::response::{Files, Response};
use crate::files::lookup::{Catalog, Loaded, Looked, Missed};
use crate::message::body::BodyDiscard;
use crate::message::field_lines::FieldLines;
use crate::message::request::{self, Method, Outcome, Reject, RequestHead, first_line};
use crate::run::answer::{Answer, Exchange, Next};
use crate::run::connection::{Connection, Input, Phase};
use crate::run::worker::Worker;
use crate::wire::h1::{self, Framing};

/// What is logged of the first line of bytes that are no request.
const LOGGED_LINE_BYTES: usize = 1024;

/// A connection that is given answers, for as long as nothing has to be waited for.
struct Turn<'a> {
    worker: &'a Rc<Worker>,
    connection: &'a Rc<Connection>,
}

/// Answers `received` and whatever else is there to be received, until the socket is empty
/// (`None`), something has to be waited for, or the connection's turn is over.
pub(crate) fn answer_requests(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    received: Option<&[u8]>,
) -> Option<Next> {
    let turn = Turn { worker, connection };
    let mut input = connection.input.borrow_mut();
    if let Some(received) = received {
        let batch = Some(worker.reactor.batch());
        let next = turn.answer_new(received, &mut input, batch);
        if next.is_some() {
            return next;
        }
    }
    loop {
        if !input.bytes.is_empty() && !input.wants_more {
            let bytes = std::mem::take(&mut input.bytes);
            let (used, next) = turn.answer_all(&bytes, &mut input, None);
            input.keep(bytes, used);
            if used > 0 && input.wants_more {
                // Another request has begun.
                connection.enter(Phase::Header);
            }
            if next.is_some() {
                return next;
            }
            continue;
        }
        if input.bytes.is_empty() && worker.draining.get() && connection.served.get() > 0 {
            return Some(Next::Leave);
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
        let mut buffer = worker.reactor.receive_more.borrow_mut();
        let received = match connection.stream.try_recv(&mut buffer) {
            Ok(received @ 1..) => &buffer[..received],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(0) | Err(_) => return Some(Next::Close),
        };
        if !input.bytes.is_empty() {
            input.bytes.extend_from_slice(received);
            input.wants_more = false;
            continue;
        }
        let next = turn.answer_new(received, &mut input, None);
        if next.is_some() {
            return next;
        }
    }
}

/// Answers bytes that are no acceptable request, and closes.
pub(crate) fn reject(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    bytes: &[u8],
    reject: Reject,
) -> Next {
    tracing::debug!("refused a request from {}: {}", connection.peer, reject.why);
    let exchange = Exchange {
        framing: Framing {
            keep_alive: false,
            version_minor: 1,
            head_only: false,
        },
        request_body: None,
        record: worker
            .lines
            .note_malformed(first_line(bytes, LOGGED_LINE_BYTES)),
    };
    let response = failure::rejected(reject);
    respond(worker, connection, exchange, response).unwrap_or(Next::Leave)
}

/// The answer to a request whose header did not come to its end in time.
pub(crate) fn too_late(worker: &Rc<Worker>, connection: &Rc<Connection>) -> Next {
    let late = Reject {
        status: 408,
        why: "its header did not come to its end in time",
    };
    let bytes = std::mem::take(&mut connection.input.borrow_mut().bytes);
    reject(worker, connection, &bytes, late)
}

/// Sends a response, or as much of it as can be sent at once.
fn respond(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    exchange: Exchange,
    response: Response,
) -> Option<Next> {
    worker.reports.complain(&response.complaints);
    let message = h1::write(response, exchange.framing, &worker.clock);
    Answer::send_now(worker, connection, message, exchange)
}

impl Turn<'_> {
    /// Answers bytes that begin with a new request, and keeps what is left of them.
    fn answer_new(&self, received: &[u8], input: &mut Input, batch: Option<u64>) -> Option<Next> {
        // The time limits run from the last sign of life.
        self.connection.enter(Phase::Idle);
        let (used, next) = self.answer_all(received, input, batch);
        input.bytes.extend_from_slice(&received[used..]);
        next
    }

    /// Answers the requests at the front of `bytes`. Says how many bytes were used up, and what
    /// keeps it from going on, if it is not just the end of the bytes.
    fn answer_all(
        &self,
        bytes: &[u8],
        input: &mut Input,
        batch: Option<u64>,
    ) -> (usize, Option<Next>) {
        let mut used = 0;
        while used < bytes.len() {
            if !self.connection.may_answer_another() {
                return (used, Some(Next::Yield));
            }
            let rest = &bytes[used..];
            match request::parse(rest, &self.worker.site().request_limits) {
                Outcome::Partial => {
                    input.wants_more = true;
                    return (used, None);
                }
                Outcome::Reject(why) => {
                    let next = reject(self.worker, self.connection, rest, why);
                    return (bytes.len(), Some(next));
                }
                Outcome::Complete { head, consumed } => {
                    let next = self.answer(&head, input, batch);
                    if !matches!(next, Some(Next::Load(_))) {
                        used += consumed;
                        input.loaded.clear();
                        input.came = None;
                    }
                    if next.is_some() {
                        return (used, next);
                    }
                }
            }
        }
        (used, None)
    }

    /// Answers a request, or says what has to be done first.
    fn answer(
        &self,
        head: &RequestHead<'_>,
        input: &mut Input,
        batch: Option<u64>,
    ) -> Option<Next> {
        let Self {
            worker, connection, ..
        } = *self;
        let exchange = self.exchange(head, input);
        let known = Known {
            files: &worker.files,
            loaded: &input.loaded,
            batch,
        };
        match decide(worker.site(), head, &known, worker.clock.second()) {
            Decision::Respond(response) => respond(worker, connection, exchange, response),
            Decision::List(listing) => Some(Next::List(Box::new((listing, exchange)))),
            Decision::Load(load) => {
                input.came = exchange.record.map(|record| record.came());
                Some(Next::Load(load))
            }
        }
    }

    /// What remains of a request until it is answered.
    fn exchange(&self, head: &RequestHead<'_>, input: &Input) -> Exchange {
        let limits = &self.worker.site().config.limits;
        let last = limits.requests_per_connection > 0
            && self.connection.served.get() + 1 >= limits.requests_per_connection;
        // An error if it is longer than what is read off.
        let request_body = BodyDiscard::new(head.body, limits.discarded_body_bytes);
        let keep_alive = head.keep_alive
            && !last
            && !self.worker.draining.get()
            && !head.expect_continue
            && request_body.is_ok();
        Exchange {
            framing: Framing {
                keep_alive,
                version_minor: head.version_minor,
                head_only: matches!(head.method, Method::Head),
            },
            request_body: request_body
                .ok()
                .filter(|body| keep_alive && !body.is_done()),
            record: self.worker.lines.note(head, input.came),
        }
    }
}

/// What is known of files without waiting for a disk.
struct Known<'a> {
    files: &'a Catalog,
    /// What was looked up for this request already.
    loaded: &'a [Loaded],
    /// The requests that were received together with this one, before any was answered.
    batch: Option<u64>,
}

impl Files for Known<'_> {
    fn look_up(&self, path: &[u8], is_dir: bool, accept: FieldLines<'_>) -> Result<Looked, Missed> {
        let known = self
            .loaded
            .iter()
            .find(|loaded| loaded.asked.path == path && loaded.asked.is_dir == is_dir);
        match known {
            Some(known) => match &known.result {
                Ok(lookup) => Ok(lookup.clone().select(accept)),
                Err(miss) => Err(Missed::Miss(*miss)),
            },
            None => self.files.look_up(path, is_dir, accept, self.batch),
        }
    }
}
