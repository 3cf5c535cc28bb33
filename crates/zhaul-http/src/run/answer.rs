//! An answer on its way, and what comes after a request was looked at.
//!
//! Whatever can be sent without waiting is sent at once, in the round in which its request was
//! received ([`Answer::send_now`]); the rest is for a task ([`crate::run::send`]).

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

use zhaul::Ask;
use zhaul::residency::is_resident;
use zhaul::send::{Advance, SendState, TurnTerms};

use crate::answer::directory::{Listing, PageMemory};
use crate::files::lookup::Load;
use crate::log::record::Record;
use crate::message::body::BodyDiscard;
use crate::run::account::{Account, Ending};
use crate::run::connection::Connection;
use crate::run::terms::Terms;
use crate::run::worker::Worker;
use crate::wire::h1::{Framing, Message, Rest};

/// What must be readable before a head that promises a file goes out.
pub(crate) const FIRST_BYTES: u64 = 64 * 1024;

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
    /// The answer, or the rest of it, has to be sent.
    Send(Box<Answer>),
}

/// What remains of a request until it is answered.
pub(crate) struct Exchange {
    pub(crate) framing: Framing,
    /// What of the request is still to be read off before the next one.
    pub(crate) request_body: Option<BodyDiscard>,
    pub(crate) record: Option<Record>,
}

/// An answer on its way.
pub(crate) struct Answer {
    pub(crate) framing: Framing,
    /// What of the request is still to be read off before the next one.
    pub(crate) request_body: Option<BodyDiscard>,
    pub(crate) ending: Ending,
    pub(crate) state: State,
    /// The round in which its file was found unchanged.
    pub(crate) batch: u64,
    /// The memory that a listing takes.
    pub(crate) pages: Option<PageMemory>,
}

/// How far it has come.
pub(crate) enum State {
    Written(Message),
    Begun(Box<Begun>),
    Over,
}

/// Something of it is sent, or could not be yet.
pub(crate) struct Begun {
    pub(crate) sending: SendState,
    /// It was interrupted for the sake of others.
    pub(crate) yields: bool,
    pub(crate) terms: Terms,
}

impl Answer {
    /// An answer of which nothing is sent.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        message: Message,
        exchange: Exchange,
    ) -> Self {
        let account = Account::new(&message, connection);
        Self {
            framing: exchange.framing,
            request_body: exchange.request_body,
            ending: Ending::new(worker, connection, account, exchange.record),
            state: State::Written(message),
            batch: worker.reactor.batch(),
            pages: None,
        }
    }

    /// What remains of its request, for an answer that takes its place: this one is not logged.
    pub(crate) fn take_exchange(&mut self) -> Exchange {
        Exchange {
            framing: self.framing,
            request_body: self.request_body.take(),
            record: self.ending.record.take(),
        }
    }

    /// Sends a message as far as it goes without waiting. `None` if it was all sent and the
    /// connection just goes on.
    pub(crate) fn send_now(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        message: Message,
        exchange: Exchange,
    ) -> Option<Next> {
        if exchange.request_body.is_some() || !may_begin(worker, connection, &message) {
            let answer = Self::new(worker, connection, message, exchange);
            return Some(Next::Send(Box::new(answer)));
        }
        let account = Account::new(&message, connection);
        let mut terms = Terms::plain(worker.site().config.stability);
        let aggregate = message.into_aggregate(|file, range| terms.range(file, range));
        let ask = Ask {
            // The last answer goes out with the FIN behind it, in one segment.
            more_follows: !exchange.framing.keep_alive,
            await_release: false,
            ..Ask::default()
        };
        let mut sending = SendState::with(aggregate, &ask);
        let turn = TurnTerms {
            residency: Some(&worker.residency),
            progress: Some(&connection.progress),
        };
        let advance = sending.turn(&connection.stream, turn);
        connection.note_sent();
        if let Some(pace) = &connection.pace {
            pace.take_last_of(sending.moved(), Instant::now());
        }
        // When a suspect file is to be looked at again the sending knows by itself.
        let yields = matches!(advance, Ok(Advance::Again));
        match advance {
            Ok(Advance::Done(_)) => {
                connection.served.set(connection.served.get() + 1);
                account.log(worker, connection, exchange.record.as_ref(), true);
                return (!exchange.framing.keep_alive).then_some(Next::Leave);
            }
            Ok(Advance::Blocked) => connection.stream.note_full(),
            Ok(Advance::Again | Advance::Later(_) | Advance::Cold) => {}
            Err(error) => {
                account.explain(worker, connection, terms.stability, &error);
                account.log(worker, connection, exchange.record.as_ref(), false);
                connection.stream.abort_queued();
                return Some(Next::Close);
            }
        }
        Some(Next::Send(Box::new(Self {
            framing: exchange.framing,
            request_body: exchange.request_body,
            ending: Ending::new(worker, connection, account, exchange.record),
            state: State::Begun(Box::new(Begun {
                sending,
                yields,
                terms,
            })),
            batch: worker.reactor.batch(),
            pages: None,
        })))
    }
}

/// Whether sending may begin at once: nothing has to be waited for, as far as is known, nor is there
/// anything to be done first.
fn may_begin(worker: &Worker, connection: &Connection, message: &Message) -> bool {
    if let Some(pace) = &connection.pace {
        let length = message.bytes.len() as u64 + message.rest.len();
        if !pace.allows(length, Instant::now()) {
            return false;
        }
    }
    let (selected, start) = match &message.rest {
        Rest::None | Rest::Memory(_) => return true,
        Rest::File(selected, range) => (selected, range.start),
        Rest::Parts(selected, parts) => (selected, parts.first_offset()),
    };
    let file = selected.file();
    if connection.pace.is_some() || file.file.is_remote() || Terms::take_a_lease(worker.site()) {
        return false;
    }
    let end = (start + FIRST_BYTES).min(file.size);
    is_resident(
        file.file.as_fd(),
        &file.version,
        start..end,
        &worker.residency,
    )
}
