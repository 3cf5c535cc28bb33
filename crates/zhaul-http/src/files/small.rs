//! Small files in memory, as HTTP/1.1 sends them.

use std::cell::{Cell, Ref, RefCell};
use std::ops::Range;
use std::sync::Arc;

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
    wire: RefCell<Arc<Vec<u8>>>,
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
            wire: RefCell::new(Arc::new(wire)),
            body_at,
            second: Cell::new(u64::MAX),
        }
    }

    /// The answer with the date of now.
    pub(crate) fn wire(&self, clock: &Clock) -> Ref<'_, Arc<Vec<u8>>> {
        let second = clock.second();
        if self.second.replace(second) != second {
            let mut wire = self.wire.borrow_mut();
            let date = clock.date();
            Arc::make_mut(&mut wire)[head::OK_DATE_AT..][..date.len()].copy_from_slice(&date);
        }
        self.wire.borrow()
    }

    /// Where in the answer the body begins.
    pub(crate) fn body_at(&self) -> usize {
        self.body_at
    }

    /// A part of the file, as a range of the answer with the date of some moment.
    pub(crate) fn part(&self, range: &ByteRange) -> (Arc<Vec<u8>>, Range<usize>) {
        // It was read whole into memory, so its offsets fit.
        let most = usize::MAX - self.body_at;
        let offset = |at: u64| self.body_at + usize::try_from(at).unwrap_or(most);
        let range = offset(range.start)..offset(range.end);
        (Arc::clone(&self.wire.borrow()), range)
    }

    /// Bytes of memory behind this.
    pub(crate) fn memory(&self) -> usize {
        self.wire.borrow().len()
    }
}
