//! HTTP/1.1 as it is written (RFC 9112): a response becomes the bytes of a message and, behind them,
//! what is better sent from where it is.

use std::ops::Range;

use bytes::Bytes;
use zhaul::{Aggregate, FileRange};

use crate::answer::response::{Body, Response, Stored};
use crate::files::entry::Representation;
use crate::files::lookup::Selected;
use crate::host::clock::Clock;
use crate::message::head;
use crate::message::multipart::{Multipart, Piece};
use crate::message::range::ByteRange;

/// A body in memory up to this size is put behind its head, to go out in the same send.
const COPY_BEHIND_HEAD: usize = 16 * 1024;

/// What a connection adds to a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    /// Whether the connection goes on after it.
    pub(crate) keep_alive: bool,
    /// The minor version of the request.
    pub(crate) version_minor: u8,
    /// The request was HEAD: no body, whatever happens.
    pub(crate) head_only: bool,
}

/// A response as it goes over the wire.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) status: u16,
    /// Content-Encoding, for the log.
    pub(crate) encoding: Option<&'static str>,
    /// The head, and behind it a body that is copied there because it is short.
    pub(crate) bytes: Bytes,
    /// Where in the message the body begins.
    pub(crate) body_at: usize,
    /// What follows `bytes`.
    pub(crate) rest: Rest,
}

/// The part of a message that is sent from where it is.
#[derive(Debug)]
pub(crate) enum Rest {
    None,
    Memory(Bytes),
    File(Selected, ByteRange),
    Parts(Selected, Box<Multipart>),
}

impl Rest {
    /// The file that it is of, if it is one.
    pub(crate) fn selected(&self) -> Option<&Selected> {
        match self {
            Self::File(selected, _) | Self::Parts(selected, _) => Some(selected),
            Self::None | Self::Memory(..) => None,
        }
    }

    /// Its length.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, range) => range.len(),
            Self::Parts(_, parts) => parts.content_length(),
        }
    }
}

impl Message {
    /// All of it, to be sent; `file` says on which terms a range of a file is.
    pub(crate) fn into_aggregate(
        self,
        mut file: impl FnMut(&Representation, Range<u64>) -> FileRange,
    ) -> Aggregate {
        let mut all = Aggregate::from(self.bytes);
        match self.rest {
            Rest::None => {}
            Rest::Memory(bytes) => all.push(bytes),
            Rest::File(selected, range) => all.push(file(selected.file(), range.start..range.end)),
            Rest::Parts(selected, parts) => {
                for piece in *parts {
                    match piece {
                        Piece::Bytes(bytes) => all.push(bytes),
                        Piece::File(range) => {
                            all.push(file(selected.file(), range.start..range.end));
                        }
                    }
                }
            }
        }
        all
    }
}

/// Writes a response.
pub(crate) fn write(response: Response, framing: Framing, clock: &Clock) -> Message {
    match prepared(&response, framing, clock) {
        Some(prepared) => prepared,
        None => compose(response, framing, clock),
    }
}

fn compose(response: Response, framing: Framing, clock: &Clock) -> Message {
    let Response {
        status,
        fields,
        body,
        ..
    } = response;
    let encoding = body.encoding();
    let mut bytes = Vec::with_capacity(512 + memory(&body));
    clock.second();
    head::begin(&mut bytes, status, &clock.date());
    fields.write(&mut bytes);
    if let Some(length) = body.length() {
        head::content_length(&mut bytes, length);
    }
    head::end(&mut bytes, framing.keep_alive, framing.version_minor);
    let body_at = bytes.len();
    let rest = match body {
        _ if framing.head_only => Rest::None,
        Body::Absent => Rest::None,
        Body::Memory(body) => attach(&mut bytes, body.into()),
        Body::File(selected, range) => match &selected.file().small {
            _ if range.is_empty() => Rest::None,
            Some(small) => attach(&mut bytes, small.part(&range)),
            None => Rest::File(selected, range),
        },
        Body::Parts(selected, parts) => Rest::Parts(selected, parts),
    };
    Message {
        status,
        encoding,
        bytes: bytes.into(),
        body_at,
        rest,
    }
}

/// The answer that is kept ready for a small file, if that is what was decided.
#[inline]
fn prepared(response: &Response, framing: Framing, clock: &Clock) -> Option<Message> {
    let (selected, Stored::All) = response.fields.of_file.as_ref()? else {
        return None;
    };
    let file = selected.file();
    let small = file.small.as_ref()?;
    let is_plain = framing.keep_alive && framing.version_minor == 1 && !framing.head_only;
    if response.status != 200 || !response.fields.own.is_empty() || !is_plain {
        return None;
    }
    let bytes = small.wire(clock);
    Some(Message {
        status: 200,
        encoding: file.content_encoding,
        body_at: small.body_at(),
        bytes,
        rest: Rest::None,
    })
}

/// Bytes of a body that are made for it.
fn memory(body: &Body) -> usize {
    match body {
        Body::Memory(body) if body.len() <= COPY_BEHIND_HEAD => body.len(),
        _ => 0,
    }
}

/// Puts a body in memory behind its head if it is short.
fn attach(head: &mut Vec<u8>, body: Bytes) -> Rest {
    if body.len() > COPY_BEHIND_HEAD {
        return Rest::Memory(body);
    }
    head.extend_from_slice(&body);
    Rest::None
}

#[cfg(test)]
mod tests;
