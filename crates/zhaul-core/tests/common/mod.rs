//! A kernel made of vectors: answers a transfer's operations from a script.
#![allow(dead_code, unreachable_pub)]

use std::collections::VecDeque;
use std::time::Duration;

use zhaul_core::{
    End, Errno, Op, Operation, Step, Stop, Summary, Timestamp, Transfer, TransferError, Version,
};

pub const PAGE: u64 = 4096;

/// The two ends, the pipe between, the driver's buffer, and how the kernel behaves.
pub struct World {
    pub source: Vec<u8>,
    pub source_is_stream: bool,
    /// How far a stream was read.
    pub source_position: usize,
    pub sink: Vec<u8>,
    pub pipe: VecDeque<u8>,
    pub buffer: Vec<u8>,
    pub edits: u32,
    /// Changes of metadata, which move ctime alone.
    pub touches: u32,
    /// What fstat states beyond what the file gives.
    pub stated_too_much: u64,
    /// Says of each call how it goes.
    pub mood: Box<dyn FnMut(&Op) -> Mood>,
    pub stats: u32,
    pub now: Duration,
    pub waits: u32,
    /// Second looks at a file that seemed edited.
    pub looks: u32,
    /// What an append, whose times are stamped already, adds before the second look.
    pub appending: Vec<u8>,
    /// Where a stream has an urgent mark, which splice does not get past.
    pub urgent_mark: Option<usize>,
    stuck: u32,
    /// A write out of a mapping that spans a cut fails as a whole, as it does to most sockets, and
    /// is not cut short at the end of the page, as it is to pipes and files.
    pub faults_across_a_cut: bool,
}

/// How one call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As much as possible.
    Full,
    /// At most so much, at least one byte.
    Short(usize),
    /// 0: there is no more.
    Nothing,
    WouldBlock,
    Fails(Errno),
    /// The file is cut to this length just before the call.
    Cut(u64),
    /// Somebody edits the file just before the call.
    Edit,
    /// Somebody changes its mode, its owner, an attribute or its name just before the call.
    Touch,
    /// The file is cut to this length during the call: what the kernel holds references to
    /// turns into zeros and counts as moved, what is read is short.
    CutDuring(u64),
}

impl World {
    pub fn file(source: Vec<u8>) -> Self {
        Self {
            source,
            source_is_stream: false,
            source_position: 0,
            sink: Vec::new(),
            pipe: VecDeque::new(),
            buffer: vec![0; 64 << 10],
            edits: 0,
            touches: 0,
            stated_too_much: 0,
            mood: Box::new(|_| Mood::Full),
            stats: 0,
            now: Duration::ZERO,
            waits: 0,
            looks: 0,
            appending: Vec::new(),
            urgent_mark: None,
            stuck: 0,
            faults_across_a_cut: false,
        }
    }

    pub fn stream(source: Vec<u8>) -> Self {
        Self {
            source_is_stream: true,
            ..Self::file(source)
        }
    }

    pub fn with_mood(mut self, mood: impl FnMut(&Op) -> Mood + 'static) -> Self {
        self.mood = Box::new(mood);
        self
    }

    pub fn version(&self) -> Version {
        let at = Timestamp {
            seconds: 1_000 + i64::from(self.edits),
            nanoseconds: 0,
        };
        Version {
            dev: 1,
            ino: 1,
            size: self.source.len() as u64 + self.stated_too_much,
            mtime: at,
            ctime: Timestamp {
                nanoseconds: self.touches,
                ..at
            },
            nlink: 1,
        }
    }

    /// Makes the call.
    pub fn execute(&mut self, op: &Op) -> Result<usize, Errno> {
        let limit = match (self.mood)(op) {
            Mood::Full => usize::MAX,
            Mood::Short(limit) => limit.max(1),
            Mood::Nothing => return Ok(0),
            Mood::WouldBlock => return Err(Errno::EAGAIN),
            Mood::Fails(errno) => return Err(errno),
            Mood::Cut(size) => {
                self.source.truncate(size as usize);
                self.edits += 1;
                usize::MAX
            }
            Mood::CutDuring(size) => {
                self.edits += 1;
                if op.operation() == Operation::Read {
                    self.source.truncate(size as usize);
                    return self.perform(op, usize::MAX);
                }
                let before = self.source.len();
                self.source.truncate(size as usize);
                self.source.resize(before, 0);
                let result = self.perform(op, usize::MAX);
                self.source.truncate(size as usize);
                return result;
            }
            Mood::Edit => {
                self.edits += 1;
                usize::MAX
            }
            Mood::Touch => {
                self.touches += 1;
                usize::MAX
            }
        };
        self.perform(op, limit)
    }

    fn perform(&mut self, op: &Op, limit: usize) -> Result<usize, Errno> {
        match *op {
            Op::Read {
                from: End::Pipe,
                len,
                ..
            } => {
                let bytes: Vec<u8> = self
                    .pipe
                    .drain(..len.min(limit).min(self.pipe.len()))
                    .collect();
                self.buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Op::Read { offset, len, .. } => {
                let bytes = self.take(offset, len.min(limit));
                self.buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Op::Write { start, len, .. } => {
                let len = len.min(limit);
                self.sink
                    .extend_from_slice(&self.buffer[start..start + len]);
                Ok(len)
            }
            Op::Map { len, .. } => Ok(len),
            Op::WriteMapped { offset, len, .. } => self.write_mapped(offset, len.min(limit)),
            Op::Sendfile { offset, len } => {
                let bytes = self.take(Some(offset), len.min(limit));
                self.sink.extend_from_slice(&bytes);
                Ok(bytes.len())
            }
            Op::CopyFileRange {
                source_offset, len, ..
            } => {
                let bytes = self.take(Some(source_offset), len.min(limit));
                self.sink.extend_from_slice(&bytes);
                Ok(bytes.len())
            }
            Op::Splice {
                from: End::Source,
                to,
                source_offset,
                len,
                ..
            } => {
                let bytes = match self.urgent_mark {
                    Some(mark) if mark == self.source_position => {
                        return self.at_the_urgent_mark();
                    }
                    Some(mark) if mark > self.source_position => {
                        let len = len.min(limit).min(mark - self.source_position);
                        self.take(source_offset, len)
                    }
                    _ => self.take(source_offset, len.min(limit)),
                };
                match to {
                    End::Pipe => {
                        assert!(self.pipe.is_empty(), "refilled before it was drained");
                        self.pipe.extend(&bytes);
                    }
                    _ => self.sink.extend_from_slice(&bytes),
                }
                Ok(bytes.len())
            }
            Op::Splice { len, .. } => {
                assert!(
                    len <= self.pipe.len(),
                    "the exact count that is in the pipe"
                );
                let bytes: Vec<u8> = self.pipe.drain(..len.min(limit)).collect();
                self.sink.extend(bytes);
                Ok(len.min(limit))
            }
            Op::SeekData { offset } => Ok(self.hole_at(offset)),
            Op::SeekHole { offset } => Ok(self.data_at(offset)),
            Op::PunchHole { len, .. } => {
                let len = len.min(limit);
                self.sink.extend(std::iter::repeat_n(0, len));
                Ok(len)
            }
            Op::Stat => unreachable!("answered by a version"),
        }
    }

    /// A hole is a run of zeros that begins and ends at a block of 512 bytes, or at the end.
    fn hole_at(&self, offset: u64) -> usize {
        let rest = self.source.get(offset as usize..).unwrap_or(&[]);
        let zeros = |block: &&[u8]| block.iter().all(|&byte| byte == 0);
        let blocks = rest.chunks(512).take_while(zeros);
        blocks.map(<[u8]>::len).sum()
    }

    fn data_at(&self, offset: u64) -> usize {
        let rest = self.source.get(offset as usize..).unwrap_or(&[]);
        let data = |block: &&[u8]| block.iter().any(|&byte| byte != 0);
        let blocks = rest.chunks(512).take_while(data);
        blocks.map(<[u8]>::len).sum()
    }

    /// EAGAIN, although there is more, or 0 if the peer closed; every other time either.
    fn at_the_urgent_mark(&mut self) -> Result<usize, Errno> {
        self.stuck += 1;
        if self.stuck.is_multiple_of(2) {
            Ok(0)
        } else {
            Err(Errno::EAGAIN)
        }
    }

    fn take(&mut self, offset: Option<u64>, len: usize) -> Vec<u8> {
        assert_eq!(
            offset.is_none(),
            self.source_is_stream,
            "offsets are for files"
        );
        let start = offset.map_or(self.source_position, |offset| offset as usize);
        let start = start.min(self.source.len());
        let end = (start + len).min(self.source.len());
        self.source_position = end;
        self.source[start..end].to_vec()
    }

    /// Like the kernel: zeros up to the end of the last page, EFAULT past it.
    fn write_mapped(&mut self, offset: u64, len: usize) -> Result<usize, Errno> {
        let size = self.source.len() as u64;
        let mapped_end = size.div_ceil(PAGE) * PAGE;
        let spans_the_cut = offset + len as u64 > mapped_end;
        if offset >= mapped_end || (spans_the_cut && self.faults_across_a_cut) {
            return Err(Errno::EFAULT);
        }
        let end = (offset + len as u64).min(mapped_end);
        for at in offset..end {
            self.sink
                .push(self.source.get(at as usize).copied().unwrap_or(0));
        }
        Ok((end - offset) as usize)
    }

    /// Steps the transfer to its end; `stop_at` stops it at that step.
    pub fn run(
        &mut self,
        transfer: &mut Transfer,
        stop_at: Option<(usize, Stop)>,
    ) -> Result<Summary, TransferError> {
        for step_number in 0.. {
            assert!(step_number < 1_000_000, "it ends");
            if let Some((at, stop)) = stop_at
                && at == step_number
            {
                transfer.stop(stop);
            }
            match transfer.next() {
                Step::Submit(Op::Stat) => {
                    self.stats += 1;
                    if let Mood::Fails(errno) = (self.mood)(&Op::Stat) {
                        transfer.observed(Err(errno));
                    } else {
                        transfer.observed(Ok(self.version()));
                    }
                }
                Step::Submit(op) => {
                    let result = self.execute(&op);
                    transfer.complete(op, result);
                    assert_eq!(transfer.pipe_bytes(), self.pipe.len() as u64);
                }
                Step::Wait(_) => {
                    assert!(!transfer.is_stopping(), "a stopped transfer does not wait");
                    self.waits += 1;
                }
                Step::Yield => {}
                Step::Pause { until } => {
                    assert!(until > self.now, "a pause ends later");
                    self.now = until;
                    transfer.tick(self.now);
                }
                Step::StatAgain { .. } => {
                    self.looks += 1;
                    self.source.append(&mut self.appending);
                }
                Step::AwaitRelease => transfer.released(),
                Step::Done(outcome) => return outcome,
            }
        }
        unreachable!()
    }
}

/// The end that the transfer says it has come to.
pub fn outcome(transfer: &mut Transfer) -> Result<Summary, TransferError> {
    match transfer.next() {
        Step::Done(outcome) => outcome,
        other => panic!("not over: {other:?}"),
    }
}

/// Bytes that show when they are shifted, repeated or left out.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 | 1
        })
        .collect()
}
