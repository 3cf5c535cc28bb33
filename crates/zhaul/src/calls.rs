//! Makes the system call that a transfer names.
//!
//! Both drivers share this: it maps symbolic ends to descriptors, owns what a route needs between
//! two calls (buffer, mapping, pipe), and retries EINTR. It never waits on purpose; whether a call
//! may block depends on the mode of the descriptors, except that sends to sockets never do.

use std::os::fd::BorrowedFd;

use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::SpliceFlags;

use zhaul_core::{End, Errno, Op, SinkFacts, SinkKind, SourceFacts, SourceKind, Transfer};
use zhaul_sys::mmap::{Mapping, SendMode};
use zhaul_sys::sigxfsz::{is_file_size_limited, without_sigxfsz};

use crate::buffer::Buffer;
use crate::errno::{errno_of, of_rustix};
use crate::pipe_pool::{PipePool, PooledPipe};
use crate::sparse::{Extents, punch_hole};

/// What a route needs between two system calls: a buffer, a mapping, a pipe, the extents of a
/// sparse file.
#[derive(Debug)]
pub(crate) struct Buffers {
    pool: Option<PipePool>,
    pipe: Option<PooledPipe>,
    window: Option<Window>,
    buffer: Buffer,
    extents: Extents,
    source_is_socket: bool,
    sink_is_socket: bool,
    /// Sends and receives on a socket in blocking mode may wait: nobody is to stop them.
    may_wait: bool,
    /// The sink may not grow beyond RLIMIT_FSIZE, which would be a signal.
    sink_is_limited: bool,
    /// The sink is this transfer's alone, from this offset on.
    kept_from: Option<u64>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Called {
    Returned(Result<usize, Errno>),
    /// It was not made: the sink ends here, and had more.
    SinkTruncated(u64),
}

impl Called {
    pub(crate) fn report(self, transfer: &mut Transfer, op: Op) {
        match self {
            Self::Returned(result) => transfer.complete(op, result),
            Self::SinkTruncated(size) => transfer.sink_truncated(size),
        }
    }
}

#[derive(Debug)]
struct Window {
    offset: u64,
    mapping: Mapping,
}

impl Buffers {
    /// Buffers for these two ends; without a pool of its own, pipes come from the shared one.
    pub(crate) fn new(source: &SourceFacts, sink: &SinkFacts, pool: Option<PipePool>) -> Self {
        Self {
            pool,
            pipe: None,
            window: None,
            buffer: Buffer::default(),
            extents: Extents::default(),
            source_is_socket: matches!(
                source.kind,
                SourceKind::StreamSocket | SourceKind::MessageSocket
            ),
            sink_is_socket: sink.kind.is_socket(),
            may_wait: false,
            sink_is_limited: sink.kind == SinkKind::Regular && is_file_size_limited(),
            kept_from: None,
        }
    }

    /// Has an eye on a sink that nobody else is to cut, and that is written from this offset on.
    pub(crate) const fn keep_sink_from(&mut self, offset: u64) {
        self.kept_from = Some(offset);
    }

    /// Makes the call, unless somebody cut the sink before where it would write.
    pub(crate) fn call(&mut self, op: &Op, source: BorrowedFd<'_>, sink: BorrowedFd<'_>) -> Called {
        if let (Some(start), Some(offset)) = (self.kept_from, op.sink_offset())
            && offset > start
            && let Ok(size) = size_of(sink)
            && size < offset
        {
            return Called::SinkTruncated(size);
        }
        Called::Returned(self.execute(op, source, sink))
    }

    /// Lets calls on sockets in blocking mode wait. A send that may not wait stops in the middle of
    /// a buffer and costs a `poll(2)` and a second send.
    pub(crate) const fn let_calls_wait(&mut self) {
        self.may_wait = true;
    }

    /// Holds a pipe if the call needs one; false if none is to be had.
    pub(crate) fn hold_pipe_for(&mut self, op: &Op) -> bool {
        let fills = matches!(op, Op::Splice { to: End::Pipe, .. });
        if fills && self.pipe.is_none() {
            let pool = self.pool.as_ref().unwrap_or_else(|| PipePool::shared());
            self.pipe = pool.take().ok();
        }
        !fills || self.pipe.is_some()
    }

    /// Gives the pipe back if nothing is in it.
    pub(crate) fn settle_pipe(&mut self, bytes_inside: u64) {
        if bytes_inside == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipe.give_back_empty();
        }
    }

    /// Makes the call.
    pub(crate) fn execute(
        &mut self,
        op: &Op,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
    ) -> Result<usize, Errno> {
        loop {
            let result = if self.sink_is_limited {
                without_sigxfsz(|| self.attempt(op, source, sink))
            } else {
                self.attempt(op, source, sink)
            };
            match result {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    fn attempt(
        &mut self,
        op: &Op,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
    ) -> Result<usize, Errno> {
        match *op {
            Op::Read { from, offset, len } => self.read(from, offset, len, source),
            Op::Write {
                start,
                len,
                offset,
                more,
            } => self.write(start, len, offset, more, sink),
            Op::Map { offset, len } => self.map(offset, len, source),
            Op::WriteMapped {
                offset,
                len,
                sink_offset,
                more,
            } => self.write_mapped(offset, len, sink_offset, more, sink),
            Op::Sendfile { offset, len } => {
                let mut offset = offset;
                rustix::fs::sendfile(sink, source, Some(&mut offset), len).map_err(of_rustix)
            }
            Op::Splice {
                from,
                to,
                source_offset,
                sink_offset,
                len,
                more,
            } => {
                let ends = (from, to);
                self.splice(ends, (source_offset, sink_offset), len, more, source, sink)
            }
            Op::CopyFileRange {
                source_offset,
                sink_offset,
                len,
            } => {
                let (mut from, mut to) = (source_offset, sink_offset);
                rustix::fs::copy_file_range(source, Some(&mut from), sink, to.as_mut(), len)
                    .map_err(of_rustix)
            }
            Op::SeekData { offset } => self.extents.hole(source, offset),
            Op::SeekHole { offset } => self.extents.data(source, offset),
            Op::PunchHole { offset, len } => punch_hole(sink, offset, len),
            // Answered with a version, not with a count, and by the driver.
            Op::Stat => Err(Errno::ENOSYS),
        }
    }

    fn read(
        &mut self,
        from: End,
        offset: Option<u64>,
        len: usize,
        source: BorrowedFd<'_>,
    ) -> Result<usize, Errno> {
        let from_pipe = matches!(from, End::Pipe);
        let source = match (&self.pipe, from_pipe) {
            (Some(pipe), true) => pipe.reader(),
            (None, true) => return Err(Errno::EBADF),
            (_, false) => source,
        };
        let room = self.buffer.room(len);
        let read = match offset {
            Some(offset) => rustix::io::pread(source, room, offset),
            None if self.source_is_socket && !from_pipe => {
                let mut flags = RecvFlags::empty();
                flags.set(RecvFlags::DONTWAIT, !self.may_wait);
                rustix::net::recv(source, room, flags).map(|(read, _)| read)
            }
            None => rustix::io::read(source, room),
        };
        read.map_err(of_rustix)
    }

    fn write(
        &self,
        start: usize,
        len: usize,
        offset: Option<u64>,
        more: bool,
        sink: BorrowedFd<'_>,
    ) -> Result<usize, Errno> {
        let bytes = self
            .buffer
            .filled()
            .get(start..start + len)
            .ok_or(Errno::EFAULT)?;
        let written = match offset {
            _ if self.sink_is_socket => {
                let mut flags = SendFlags::NOSIGNAL;
                flags.set(SendFlags::DONTWAIT, !self.may_wait);
                flags.set(SendFlags::MORE, more);
                rustix::net::send(sink, bytes, flags)
            }
            Some(offset) => rustix::io::pwrite(sink, bytes, offset),
            None => rustix::io::write(sink, bytes),
        };
        written.map_err(of_rustix)
    }

    fn map(&mut self, offset: u64, len: usize, source: BorrowedFd<'_>) -> Result<usize, Errno> {
        // The old window goes first, so that never more than one is mapped.
        self.window = None;
        let mapping = Mapping::map(source, offset, len).map_err(|error| errno_of(&error))?;
        // Advice: a kernel that does not take it reads ahead as it does by default.
        let _ = mapping.advise_sequential();
        self.window = Some(Window { offset, mapping });
        Ok(len)
    }

    fn write_mapped(
        &self,
        offset: u64,
        len: usize,
        sink_offset: Option<u64>,
        more: bool,
        sink: BorrowedFd<'_>,
    ) -> Result<usize, Errno> {
        let window = self.window.as_ref().ok_or(Errno::EFAULT)?;
        let start = offset
            .checked_sub(window.offset)
            .and_then(|start| usize::try_from(start).ok())
            .filter(|start| start + len <= window.mapping.len())
            .ok_or(Errno::EFAULT)?;
        let range = start..start + len;
        let written = match sink_offset {
            _ if self.sink_is_socket => window.mapping.send_to(
                sink,
                range,
                SendMode {
                    dont_wait: !self.may_wait,
                    more,
                },
            ),
            Some(sink_offset) => window.mapping.write_to_at(sink, range, sink_offset),
            None => window.mapping.write_to(sink, range),
        };
        written.map_err(|error| errno_of(&error))
    }

    fn splice(
        &self,
        (from, to): (End, End),
        (source_offset, sink_offset): (Option<u64>, Option<u64>),
        len: usize,
        more: bool,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
    ) -> Result<usize, Errno> {
        let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        flags.set(SpliceFlags::MORE, more);
        let (mut from_offset, mut to_offset) = (source_offset, sink_offset);
        let input = match (from, &self.pipe) {
            (End::Pipe, Some(pipe)) => pipe.reader(),
            (End::Pipe, None) => return Err(Errno::EBADF),
            (End::Source | End::Sink, _) => source,
        };
        let output = match (to, &self.pipe) {
            (End::Pipe, Some(pipe)) => pipe.writer(),
            (End::Pipe, None) => return Err(Errno::EBADF),
            (End::Source | End::Sink, _) => sink,
        };
        rustix::pipe::splice(
            input,
            from_offset.as_mut(),
            output,
            to_offset.as_mut(),
            len,
            flags,
        )
        .map_err(of_rustix)
    }
}

/// Bytes that a file has.
pub(crate) fn size_of(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let stat = rustix::fs::fstat(file).map_err(of_rustix)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}
