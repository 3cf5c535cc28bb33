//! What a plan should cost, call by call, found by walking the plan without making a call.
//!
//! The library's own state machine ([`Transfer`]) names each system call in turn; here it is told
//! that each did all that was asked of it. So buffers smaller than a chunk, version checks, windows
//! of a mapping and the last look at the end are in the figures, and cannot differ from what the
//! library does. What cannot be known beforehand is not in them: calls that a slow or small sink
//! cuts short, a stream that trickles, waiting, and setting up.
//!
//! All of it is *from the plan*. Nothing here was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zhaul::{
    Ask, HostFacts, InPlaceEnd, Length, Plan, SinkFacts, SinkKind, SourceFacts, SourceKind,
};
use zhaul::{Errno, PipePool, TransferError};
use zhaul_core::{End, Op, Step, Transfer};

use super::memory::InMemory;

/// What a plan should cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Bytes to be moved; `None` if only the end of the source will tell.
    pub bytes: Option<u64>,
    /// Largest amount asked of one call.
    pub chunk_bytes: u64,
    /// Chunks, cut at multiples of their size in the source; `None` without a size.
    pub chunks: Option<u64>,
    /// System calls by name: in all, or where the size is not known, for [`SAMPLE_CHUNKS`] chunks.
    pub calls: BTreeMap<String, f64>,
    /// The same as the library counts them: a window mapped is one operation and three calls.
    pub operations: f64,
    /// System calls for a chunk.
    pub calls_per_chunk: f64,
    /// Changes between user and kernel mode for a chunk: two for each call.
    pub mode_switches_per_chunk: f64,
    /// Times the CPU touches each byte.
    pub cpu_copies_per_byte: u32,
    /// What devices move by themselves.
    pub dma: Dma,
}

/// What devices move by themselves, without the CPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dma {
    /// Times a disk moves each byte of the source that is not in memory yet: 0 or 1.
    pub source_copies: u32,
    /// Bytes that are not in memory yet, as far as it can be told.
    pub source_bytes: Option<u64>,
    /// Times a network device, or a disk at some later time, moves each byte of the sink: 0 or 1.
    pub sink_copies: u32,
}

/// For how many chunks calls are counted where nobody knows how many there will be.
pub const SAMPLE_CHUNKS: u64 = 16;

/// What the walk needs to know beside the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) source: &'a SourceFacts,
    pub(crate) sink: &'a SinkFacts,
    pub(crate) sink_pipe_bytes: Option<usize>,
    pub(crate) in_memory: Option<InMemory>,
    pub(crate) sink_is_in_memory: bool,
    pub(crate) source_is_in_memory: bool,
}

impl Expected {
    /// Walks the plan.
    ///
    /// # Errors
    /// If no transfer could be made on it: the route asked for is refused, or no route can do it.
    pub(crate) fn of(
        plan: &Plan,
        ends: &Ends<'_>,
        host: &HostFacts,
        ask: &Ask,
    ) -> Result<Self, TransferError> {
        let bytes = match ask.length {
            Length::Exact(bytes) => Some(bytes),
            _ if ends.source.version.is_some_and(|version| version.size == 0) => Some(0),
            _ => None,
        };
        let chunk_bytes = ask.chunk_bytes.max(1) as u64;
        let start = if ends.source.seekable { ask.offset } else { 0 };
        let chunks = bytes.map(|bytes| match bytes {
            0 => 0,
            _ => start.saturating_add(bytes).div_ceil(chunk_bytes) - start / chunk_bytes,
        });
        let transfer = Transfer::new(*plan, ends.source, ends.sink, host, ask)?;
        let limits = Limits::of(ends);
        let sample = SAMPLE_CHUNKS * chunk_bytes;
        let walk = Walk::new(transfer, ends, limits).run(bytes.unwrap_or(sample));
        // What was not walked is like what was.
        let scale = match bytes {
            Some(bytes) if walk.moved > 0 => bytes as f64 / walk.moved as f64,
            _ => 1.0,
        };
        let counted = chunks.unwrap_or(SAMPLE_CHUNKS).max(1) as f64;
        let all: f64 = walk.calls.values().map(|&count| count as f64 * scale).sum();
        let calls_per_chunk = all / counted;
        Ok(Self {
            bytes,
            chunk_bytes,
            chunks,
            calls: walk
                .calls
                .into_iter()
                .map(|(name, count)| (name.to_owned(), (count as f64 * scale).round()))
                .collect(),
            operations: (walk.operations as f64 * scale).round(),
            calls_per_chunk,
            mode_switches_per_chunk: 2.0 * calls_per_chunk,
            cpu_copies_per_byte: if bytes == Some(0) {
                0
            } else {
                plan.expected.cpu_copies
            },
            dma: dma(ends, bytes),
        })
    }

    /// System calls in all, if the size is known.
    pub fn calls_in_all(&self) -> Option<f64> {
        self.bytes.map(|_| self.calls.values().sum())
    }
}

/// A disk is read for what the page cache lacks. What goes to a disk is written by the kernel some
/// time later; what goes to a network device, when the packets leave.
fn dma(ends: &Ends<'_>, bytes: Option<u64>) -> Dma {
    let from_disk = match ends.source.kind {
        SourceKind::Regular => !ends.source_is_in_memory,
        SourceKind::Block => true,
        _ => false,
    };
    let to_device = match ends.sink.kind {
        SinkKind::Regular => !ends.sink_is_in_memory,
        SinkKind::Block => true,
        _ => ends.sink.in_place_ends_at == InPlaceEnd::Acknowledged,
    };
    let missing = match (bytes, ends.in_memory) {
        (Some(bytes), _) if bytes == 0 || !from_disk => Some(0),
        (Some(bytes), Some(memory)) => {
            Some((bytes as f64 * (1.0 - memory.fraction)).round() as u64)
        }
        _ => None,
    };
    Dma {
        source_copies: u32::from(from_disk),
        source_bytes: missing.filter(|_| from_disk),
        sink_copies: u32::from(to_device),
    }
}

/// What pipes hold, so that a call cannot move more.
#[derive(Clone, Copy, Debug)]
struct Limits {
    between: usize,
    sink: usize,
}

impl Limits {
    fn of(ends: &Ends<'_>) -> Self {
        let pooled = PipePool::shared().take().ok();
        Self {
            between: pooled.map_or(usize::MAX, |pipe| pipe.nominal_bytes()),
            sink: ends.sink_pipe_bytes.unwrap_or(usize::MAX),
        }
    }
}

struct Walk<'a> {
    transfer: Transfer,
    source: &'a SourceFacts,
    sink_is_socket: bool,
    limits: Limits,
    calls: BTreeMap<&'static str, u64>,
    steps: u64,
}

struct Walked {
    calls: BTreeMap<&'static str, u64>,
    operations: u64,
    moved: u64,
}

impl<'a> Walk<'a> {
    fn new(transfer: Transfer, ends: &Ends<'a>, limits: Limits) -> Self {
        Self {
            transfer,
            source: ends.source,
            sink_is_socket: ends.sink.kind.is_socket(),
            limits,
            calls: BTreeMap::new(),
            steps: 0,
        }
    }

    fn run(mut self, bytes: u64) -> Walked {
        while self.steps < MAX_STEPS {
            self.steps += 1;
            match self.transfer.next() {
                Step::Submit(Op::Stat) => self.look(),
                // A stream, or a file without a size, has been followed long enough.
                Step::Submit(op) if self.is_at(bytes, &op) => break,
                Step::Submit(op) => self.make(op),
                Step::AwaitRelease => self.transfer.released(),
                Step::Pause { until } => self.transfer.tick(until + Duration::from_millis(1)),
                Step::Wait(_) | Step::Yield | Step::StatAgain { .. } => {}
                Step::Done(_) => break,
            }
        }
        Walked {
            moved: self.transfer.moved(),
            operations: self.transfer.calls(),
            calls: self.calls,
        }
    }

    fn is_at(&self, bytes: u64, op: &Op) -> bool {
        let takes = matches!(
            op,
            Op::Read {
                from: End::Source,
                ..
            } | Op::Sendfile { .. }
                | Op::Splice {
                    from: End::Source,
                    ..
                }
                | Op::CopyFileRange { .. }
        );
        bytes > 0 && takes && self.transfer.moved() >= bytes
    }

    fn look(&mut self) {
        self.count("fstat");
        let version = self.source.version.ok_or(Errno::EIO);
        self.transfer.observed(version);
    }

    fn make(&mut self, op: Op) {
        for name in self.names(&op) {
            self.count(name);
        }
        let is_empty = self.source.version.is_some_and(|version| version.size == 0);
        let done = match op {
            Op::Read {
                from: End::Source, ..
            }
            | Op::Sendfile { .. }
            | Op::CopyFileRange { .. }
                if is_empty =>
            {
                0
            }
            Op::Splice {
                from: End::Source, ..
            } if is_empty => 0,
            Op::Splice {
                to: End::Pipe, len, ..
            } => len.min(self.limits.between),
            Op::Splice {
                to: End::Sink, len, ..
            }
            | Op::Sendfile { len, .. }
            | Op::Write { len, .. }
            | Op::WriteMapped { len, .. } => len.min(self.limits.sink),
            Op::Read { len, .. }
            | Op::Map { len, .. }
            | Op::CopyFileRange { len, .. }
            | Op::Splice { len, .. }
            | Op::PunchHole { len, .. } => len,
            // The kind of file that is explained is taken for one without holes.
            Op::Stat | Op::SeekData { .. } | Op::SeekHole { .. } => 0,
        };
        self.transfer.complete(op, Ok(done));
    }

    /// The system calls that the driver makes for an operation, as the kernel names them.
    fn names(&self, op: &Op) -> &'static [&'static str] {
        match op {
            Op::Read {
                offset: Some(_), ..
            } => &["pread64"],
            Op::Read {
                from: End::Source, ..
            } if self.source.kind == SourceKind::StreamSocket => &["recvfrom"],
            Op::Read { .. } => &["read"],
            Op::Write { .. } | Op::WriteMapped { .. } if self.sink_is_socket => &["sendto"],
            Op::Write { .. } | Op::WriteMapped { .. } => &["write"],
            // Advice on how it will be read, and unmapping before the next window or at the end.
            Op::Map { .. } => &["mmap", "madvise", "munmap"],
            Op::Sendfile { .. } => &["sendfile"],
            Op::Splice { .. } => &["splice"],
            Op::CopyFileRange { .. } => &["copy_file_range"],
            Op::Stat => &["fstat"],
            Op::SeekData { .. } | Op::SeekHole { .. } => &["lseek"],
            Op::PunchHole { .. } => &["fstat", "fallocate", "ftruncate", "lseek"],
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.calls.entry(name).or_default() += 1;
    }
}

/// Some ten milliseconds of walking; beyond it everything repeats itself.
const MAX_STEPS: u64 = 400_000;

#[cfg(test)]
#[path = "expected_tests.rs"]
mod tests;
