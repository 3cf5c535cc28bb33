//! The account of a transfer: what was taken, what was delivered, what may be taken next.

use crate::ask::{Ask, Length, MAX_OFFSET};
use crate::facts::{SinkFacts, SourceFacts, SourceKind};
use crate::limits::Limits;

#[derive(Debug)]
pub(super) struct Ledger {
    source_is_seekable: bool,
    source_is_file: bool,
    pub(super) source_is_pipe: bool,
    pub(super) source_is_socket: bool,
    pub(super) sink_is_pipe: bool,
    sink_is_socket: bool,
    start: u64,
    sink_start: Option<u64>,
    limit: Option<u64>,
    /// Bytes that left the source.
    taken: u64,
    /// Bytes that the sink took.
    pub(super) moved: u64,
    /// System calls reported.
    pub(super) calls: u64,
    chunk_bytes: u64,
    chunk_left: u64,
    /// What is left before the next hole.
    data_left: Option<u64>,
    /// Bytes of holes, which were not moved but count.
    pub(super) holes: u64,
    /// More is certain to follow the last byte.
    more_follows: bool,
    pub(super) limits: Limits,
}

impl Ledger {
    pub(super) fn new(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Self {
        Self {
            source_is_seekable: source.seekable,
            source_is_file: source.kind.is_page_cache(),
            source_is_pipe: source.kind.is_pipe(),
            source_is_socket: source.kind == SourceKind::StreamSocket,
            sink_is_pipe: sink.kind.is_pipe(),
            sink_is_socket: sink.kind.is_socket(),
            start: if source.seekable { ask.offset } else { 0 },
            sink_start: ask.sink_offset,
            limit: match ask.length {
                Length::Exact(bytes) => Some(bytes),
                Length::ToEnd => None,
            },
            taken: 0,
            moved: 0,
            calls: 0,
            chunk_bytes: (ask.chunk_bytes.max(1) as u64).min(MAX_CALL_BYTES),
            chunk_left: 0,
            data_left: None,
            holes: 0,
            more_follows: ask.more_follows,
            limits: Limits::of(ask),
        }
    }

    pub(super) const fn is_seekable(&self) -> bool {
        self.source_is_seekable
    }

    /// Where the next byte is read, for sources that have such a place.
    pub(super) const fn source_offset(&self) -> Option<u64> {
        if self.source_is_seekable {
            Some(self.offset())
        } else {
            None
        }
    }

    pub(super) const fn offset(&self) -> u64 {
        self.start.saturating_add(self.taken)
    }

    /// Where the next byte is written, if the caller asked for a place.
    pub(super) fn sink_offset(&self) -> Option<u64> {
        self.sink_start
            .map(|start| start.saturating_add(self.moved))
    }

    pub(super) const fn in_transit(&self) -> u64 {
        self.taken - self.moved
    }

    /// Bytes that neither side has: a file can be read again, a stream cannot.
    pub(super) const fn stranded(&self) -> u64 {
        if self.source_is_seekable {
            0
        } else {
            self.in_transit()
        }
    }

    pub(super) const fn remaining(&self) -> Option<u64> {
        match self.limit {
            Some(limit) => Some(limit - self.taken),
            None => None,
        }
    }

    pub(super) const fn source_end(&self) -> Option<u64> {
        match self.limit {
            Some(limit) if self.source_is_seekable => Some(self.start.saturating_add(limit)),
            _ => None,
        }
    }

    /// How much the next call may take from the source.
    pub(super) fn take_len(&self) -> usize {
        let mut len = self.chunk_left.min(self.remaining().unwrap_or(u64::MAX));
        if self.source_is_seekable {
            // The kernel refuses a range that ends behind the last offset there is, whole.
            len = len.min(MAX_OFFSET.saturating_sub(self.offset()));
        }
        if let Some(data) = self.data_left.filter(|&data| data > 0) {
            len = len.min(data);
        }
        len = len.min(self.limits.quantum_bytes().unwrap_or(u64::MAX));
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// True if more bytes are certain to follow the next `len` at once: only a file has them
    /// ready, and only within a chunk (the next one may have to come from the disk first), and only
    /// if the caller said how many, and no throttle spreads them out. A cork on anything less
    /// certain stalls the receiver for up to 200 ms. What follows the last byte is the caller's to
    /// say. Only sockets know the flag.
    pub(super) fn is_more_certain_after(&self, len: u64) -> bool {
        let in_chunk = self.chunk_left + self.in_transit() > len;
        let left = self.limit.is_some_and(|limit| {
            let left = limit - self.moved;
            in_chunk && left > len || self.more_follows && left == len
        });
        left && self.source_is_file && self.sink_is_socket && !self.limits.is_throttled()
    }

    /// Bytes left the source and are on their way.
    pub(super) fn take(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.taken += bytes;
        self.chunk_left = self.chunk_left.saturating_sub(bytes);
        self.data_left = self.data_left.map(|data| data.saturating_sub(bytes));
        self.limits.take(bytes);
    }

    /// Bytes that were on their way reached the sink.
    pub(super) fn deliver(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.moved += bytes;
        self.limits.deliver(bytes);
        debug_assert!(
            self.moved <= self.taken,
            "nothing is delivered that was not taken"
        );
    }

    /// Bytes went from the source to the sink in one call.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.take(bytes);
        self.deliver(bytes);
    }

    /// A hole of the source is one of the sink now. That costs nothing of budget and rate.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.taken += bytes;
        self.moved += bytes;
        self.holes += bytes;
        self.chunk_left = self.chunk_left.saturating_sub(bytes);
    }

    /// There is so much data before the next hole.
    pub(super) const fn expect_data(&mut self, bytes: u64) {
        self.data_left = Some(bytes);
    }

    /// True if there is data here as far as it was asked for.
    pub(super) fn has_data(&self) -> bool {
        self.data_left.is_some_and(|data| data > 0)
    }

    pub(super) const fn is_chunk_done(&self) -> bool {
        self.chunk_left == 0
    }

    /// Opens the chunk that ends at the next multiple of the chunk size in the source, so that
    /// chunks of different transfers of one file coincide and their residency can be remembered.
    pub(super) const fn open_chunk(&mut self) {
        self.chunk_left = self.chunk_bytes - self.offset() % self.chunk_bytes;
    }

    /// A system call was reported.
    pub(super) const fn count_call(&mut self) {
        self.calls += 1;
        self.limits.count_call();
    }
}

/// `splice(2)` refuses more than this in one call with EINVAL; sendfile stops at 0x7ffff000.
const MAX_CALL_BYTES: u64 = 1 << 30;
