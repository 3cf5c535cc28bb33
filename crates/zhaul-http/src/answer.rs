//! From a request to its answer.
//!
//! [`Worker::answer`] runs inside the poll that received the request. What is in memory is decided
//! and sent there, in one send(2); everything else becomes an [`Answer`] for the connection's task
//! to send ([`crate::send`]), a path to be looked up where a disk may be waited for, or a directory
//! to be read.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::body::BodyDiscard;
use crate::cache::Slot;
use crate::connection::Connection;
use crate::directory::{Listing, PageMemory};
use crate::encoding::Coding;
use crate::entry::{FileSet, Representation};
use crate::error_page::ALLOW;
use crate::head;
use crate::lookup::{Load, Loaded, Lookup, Missed};
use crate::multipart::Multipart;
use crate::range::ByteRange;
use crate::record::{Outcome, Record};
use crate::request::{Method, RequestHead, TargetForm};
use crate::root::Miss;
use crate::target::{TargetPath, directory_location};
use crate::worker::Worker;

/// What comes after a request was looked at.
pub(crate) enum Next {
    /// It is answered, in full.
    Sent,
    /// It is answered, in full, and nothing more will be said on this connection.
    Leave,
    /// The path has to be looked up where a disk may be waited for; then the request is to be
    /// parsed again.
    Load(Load),
    /// A directory has to be read for this answer.
    List(Box<Listing>),
    /// The rest of the answer has to be sent.
    Send(Box<Answer>),
    /// The client is gone.
    Close,
}

/// An answer on its way.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, and behind it a body that is in memory and belongs to this answer alone.
    pub(crate) head: Vec<u8>,
    /// Where in `head` the body begins.
    pub(crate) body_at: usize,
    /// How much of `head` is sent already.
    pub(crate) head_sent: usize,
    pub(crate) body: Body,
    pub(crate) keep_alive: bool,
    /// What of the request is still to be read off before the next one.
    pub(crate) request_body: Option<BodyDiscard>,
    pub(crate) record: Option<Record>,
    /// Content-Encoding, for the log.
    pub(crate) encoding: Option<&'static str>,
    /// The request was HEAD: no body, whatever happens.
    pub(crate) head_only: bool,
    /// The round in which its file was found unchanged.
    pub(crate) batch: u64,
    /// The memory that a listing takes.
    pub(crate) pages: Option<PageMemory>,
}

/// The part of an answer that is not in its head buffer.
pub(crate) enum Body {
    None,
    /// Bytes in memory, shared with the cache.
    Shared {
        bytes: Arc<Vec<u8>>,
        range: Range<usize>,
    },
    /// Bytes of a file.
    File {
        slot: Rc<Slot<FileSet>>,
        coding: Coding,
        range: ByteRange,
    },
    /// Several ranges of a file.
    Parts {
        slot: Rc<Slot<FileSet>>,
        coding: Coding,
        parts: Multipart,
    },
}

/// A request with what its connection adds to it.
pub(crate) struct Exchange<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) loaded: &'a [Loaded],
    /// The requests that were received together with this one, before any was answered.
    pub(crate) batch: Option<u64>,
    pub(crate) keep_alive: bool,
    /// `None` if it is longer than what is read off.
    pub(crate) request_body: Option<BodyDiscard>,
    pub(crate) record: Option<Record>,
}

impl Body {
    /// Content-Encoding of what is sent.
    fn encoding(&self) -> Option<&'static str> {
        match self {
            Self::File { slot, coding, .. } | Self::Parts { slot, coding, .. } => {
                slot.value.get(*coding)?.content_encoding
            }
            Self::None | Self::Shared { .. } => None,
        }
    }

    /// The file that it is of, if it is one.
    pub(crate) fn file(&self) -> Option<&Representation> {
        match self {
            Self::File { slot, coding, .. } | Self::Parts { slot, coding, .. } => {
                slot.value.get(*coding)
            }
            Self::None | Self::Shared { .. } => None,
        }
    }

    /// Has what is known of its file looked at again before the next answer.
    pub(crate) fn distrust(&self) {
        if let Self::File { slot, .. } | Self::Parts { slot, .. } = self {
            slot.value.renew(0);
        }
    }

    /// Whether sending it takes more than the head's send.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl Worker {
    /// Answers a request, or says what has to be done first.
    pub(crate) fn answer(
        &self,
        connection: &Connection,
        head: &RequestHead<'_>,
        loaded: &[Loaded],
        batch: Option<u64>,
    ) -> Next {
        let limits = &self.site.config.limits;
        let last = limits.requests_per_connection > 0
            && connection.served.get() + 1 >= limits.requests_per_connection;
        let request_body = BodyDiscard::new(head.body, limits.discarded_body_bytes).ok();
        let keep_alive = head.keep_alive
            && !last
            && !self.is_draining()
            && !head.expect_continue
            && request_body.is_some();
        let record = self.record(head, loaded);
        let exchange = Exchange {
            connection,
            head,
            loaded,
            batch,
            keep_alive,
            request_body,
            record,
        };
        match head.method {
            Method::Get | Method::Head => self.get(exchange),
            Method::Options => self.options(exchange),
            Method::Other(_) => self.error(exchange, 405),
        }
    }

    fn get(&self, mut exchange: Exchange<'_>) -> Next {
        let head = exchange.head;
        let target = match TargetPath::decode(head.path) {
            Ok(target) => target,
            Err(e) => return self.error(exchange, e.status()),
        };
        if target.has_dot_file && !self.site.config.dot_files {
            return self.error(exchange, 404);
        }
        if let Some(why) = target.names_nothing {
            return self.not_found(exchange, why.status());
        }
        match self.look_up(
            &exchange,
            &target.relative,
            target.is_dir,
            head.accept_encoding,
        ) {
            Ok((Lookup::File(slot), coding)) => self.file(exchange, &slot, coding),
            Ok((Lookup::Redirect, _)) => {
                let location = directory_location(&target.relative, head.query);
                self.redirect(exchange, &location)
            }
            Ok((Lookup::Listing(dir), _)) => self.list(&mut exchange, dir, &target.relative),
            Err(Missed::Elsewhere(next)) => next,
            Err(Missed::Miss(Miss::NotFound)) => self.not_found(exchange, 404),
            Err(Missed::Miss(miss)) => self.failed(exchange, &target.relative, miss),
        }
    }

    /// Answers a path that names nothing: with the page of a single-page app, or with `status`.
    fn not_found(&self, exchange: Exchange<'_>, status: u16) -> Next {
        let Some(spa) = &self.site.config.spa else {
            return self.error(exchange, status);
        };
        match self.look_up(
            &exchange,
            spa.as_bytes(),
            false,
            exchange.head.accept_encoding,
        ) {
            Ok((Lookup::File(slot), coding)) => self.file(exchange, &slot, coding),
            Err(Missed::Elsewhere(next)) => next,
            Ok(_) | Err(Missed::Miss(_)) => self.error(exchange, 404),
        }
    }

    fn redirect(&self, exchange: Exchange<'_>, location: &[u8]) -> Next {
        let mut fields = Vec::with_capacity(location.len() + 16);
        head::field(&mut fields, "Location", location);
        self.error_with(exchange, 301, &fields)
    }

    fn options(&self, exchange: Exchange<'_>) -> Next {
        let mut out = Vec::with_capacity(512);
        self.begin(&mut out, 204);
        head::field(&mut out, "Allow", ALLOW.as_bytes());
        if exchange.head.form != TargetForm::Asterisk {
            self.site.options_fields(exchange.head, &mut out);
        }
        self.finish_head(exchange, 204, out)
    }

    pub(crate) fn with_body(
        &self,
        exchange: Exchange<'_>,
        status: u16,
        mut out: Vec<u8>,
        body: Body,
    ) -> Next {
        let Exchange {
            connection,
            head,
            keep_alive,
            request_body,
            record,
            ..
        } = exchange;
        head::end(&mut out, keep_alive, head.version_minor);
        let mut answer = Answer::new(status, out, keep_alive, record);
        answer.encoding = body.encoding();
        answer.head_only = matches!(head.method, Method::Head);
        answer.batch = self.batch();
        Self::mind_the_rest(request_body, &mut answer);
        if answer.head_only {
            return self.send_now(connection, answer);
        }
        match body {
            Body::Shared { bytes, range } if range.len() <= COPY_BEHIND_HEAD => {
                answer.head.extend_from_slice(&bytes[range]);
            }
            body => answer.body = body,
        }
        self.send_now(connection, answer)
    }

    pub(crate) fn finish_head(&self, exchange: Exchange<'_>, status: u16, out: Vec<u8>) -> Next {
        self.with_body(exchange, status, out, Body::None)
    }

    /// Notes what of the request is still to be read.
    pub(crate) fn mind_the_rest(request_body: Option<BodyDiscard>, answer: &mut Answer) {
        answer.request_body = request_body.filter(|body| answer.keep_alive && !body.is_done());
    }

    /// Sends an answer that is all in its head buffer at once, if the socket takes it, and if
    /// nothing of its request is left to be read.
    pub(crate) fn send_now(&self, connection: &Connection, mut answer: Answer) -> Next {
        if !answer.body.is_none() || answer.request_body.is_some() {
            return Next::Send(Box::new(answer));
        }
        // The last answer goes out with the FIN behind it, in one segment.
        let more = !answer.keep_alive;
        match connection.stream.try_send(&answer.head, more) {
            Ok(sent) => {
                connection.add_sent(sent);
                answer.head_sent = sent;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => {
                self.log_lost(connection, answer.record.as_ref(), answer.status);
                return Next::Close;
            }
        }
        if answer.head_sent < answer.head.len() {
            return Next::Send(Box::new(answer));
        }
        connection.served.set(connection.served.get() + 1);
        if let Some(record) = &answer.record {
            let bytes = (answer.head_sent - answer.body_at) as u64;
            let outcome = Outcome::from_memory(answer.status, bytes, answer.encoding);
            self.log_line(connection, record, outcome);
        }
        if answer.keep_alive {
            Next::Sent
        } else {
            Next::Leave
        }
    }

    pub(crate) fn begin(&self, out: &mut Vec<u8>, status: u16) {
        self.clock.second();
        head::begin(out, status, &self.clock.date());
    }
}

impl Answer {
    pub(crate) fn new(
        status: u16,
        head: Vec<u8>,
        keep_alive: bool,
        record: Option<Record>,
    ) -> Self {
        Self {
            status,
            body_at: head.len(),
            head,
            head_sent: 0,
            body: Body::None,
            keep_alive,
            request_body: None,
            record,
            encoding: None,
            head_only: false,
            batch: 0,
            pages: None,
        }
    }
}

/// A body in memory up to this size is put behind its head, to go out in the same send.
const COPY_BEHIND_HEAD: usize = 16 * 1024;
