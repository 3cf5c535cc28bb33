//! Small files in memory, as HTTP/1.1 sends them.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};

use crate::host::clock::Clock;
use crate::message::head;
use crate::message::range::ByteRange;
use crate::message::validators::DATE_BYTES;

/// Files up to this size are kept in memory, already behind their header, and go out in one
/// send(2). A choice, not yet a measured crossover: at 16 KiB one send costs what header + sendfile
/// do, at 128 KiB 1.6 times as much (the two floors in docs/bench-serve.md).
pub(crate) const SMALL: u64 = 64 * 1024;

/// A small file in memory: a whole answer with status 200, ready for one send(2).
#[derive(Debug)]
pub(crate) struct Small {
    /// Shared with an answer that the socket took only in part; replaced, not changed, while it is.
    wire: RefCell<Bytes>,
    body_at: usize,
    /// The second that its Date field tells.
    second: Cell<u64>,
}

impl Small {
    /// The answer with these fields and this content.
    pub(crate) fn new(fields: &[u8], content: &[u8]) -> Self {
        let mut wire = Vec::with_capacity(content.len() + fields.len() + 256);
        head::begin(&mut wire, 200, &[b'0'; DATE_BYTES]);
        wire.extend_from_slice(fields);
        head::content_length(&mut wire, content.len() as u64);
        wire.extend_from_slice(b"\r\n");
        let body_at = wire.len();
        wire.extend_from_slice(content);
        wire.shrink_to_fit();
        Self {
            wire: RefCell::new(wire.into()),
            body_at,
            second: Cell::new(u64::MAX),
        }
    }

    /// The answer with the date of now.
    #[inline]
    pub(crate) fn wire(&self, clock: &Clock) -> Bytes {
        let second = clock.second();
        if self.second.replace(second) != second {
            self.date(clock);
        }
        self.wire.borrow().clone()
    }

    #[cold]
    fn date(&self, clock: &Clock) {
        let dated = self.wire.take();
        let mut wire = dated
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let date = clock.date();
        wire[head::OK_DATE_AT..][..date.len()].copy_from_slice(&date);
        self.wire.replace(wire.freeze());
    }

    /// Where in the answer the body begins.
    pub(crate) fn body_at(&self) -> usize {
        self.body_at
    }

    /// A part of the file.
    pub(crate) fn part(&self, range: &ByteRange) -> Bytes {
        // It was read whole into memory, so its offsets fit.
        let most = usize::MAX - self.body_at;
        let offset = |at: u64| self.body_at + usize::try_from(at).unwrap_or(most);
        self.wire
            .borrow()
            .slice(offset(range.start)..offset(range.end))
    }

    /// Bytes of memory behind this.
    pub(crate) fn memory(&self) -> usize {
        self.wire.borrow().len()
    }
}
