//! A socket that answers from a script, and files that the transfers of an aggregate read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use zhaul_core::outbound::{
    Gather, Outbound, OutboundStep, SegmentFacts, SegmentList, SendError, SendSummary,
};
use zhaul_core::{
    Ask, Errno, HostFacts, InPlaceEnd, Interest, Op, SinkFacts, SourceFacts, Stability, Stop,
};

use crate::common::{Mood, World};

#[derive(Clone, Debug)]
pub(crate) enum Segment {
    Memory(Vec<u8>),
    /// A range of a file.
    File {
        bytes: Vec<u8>,
        offset: u64,
        len: u64,
        stability: Stability,
    },
}

impl Segment {
    pub(crate) fn memory(bytes: &[u8]) -> Self {
        Self::Memory(bytes.to_vec())
    }

    pub(crate) fn file(bytes: Vec<u8>, stability: Stability) -> Self {
        let len = bytes.len() as u64;
        Self::File {
            bytes,
            offset: 0,
            len,
            stability,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::File {
                bytes, offset, len, ..
            } => &bytes[*offset as usize..][..*len as usize],
        }
    }
}

pub(crate) struct List(pub(crate) Vec<Segment>);

impl SegmentList for List {
    fn facts(&self, index: usize) -> Option<SegmentFacts> {
        self.0.get(index).map(|segment| match segment {
            Segment::Memory(bytes) => SegmentFacts::Memory { len: bytes.len() },
            &Segment::File { offset, len, .. } => SegmentFacts::File { offset, len },
        })
    }
}

/// How a send goes.
pub(crate) type SendMood = Box<dyn FnMut(&Gather) -> Mood>;
/// How a call of a file's transfer goes, by the number of its segment.
pub(crate) type FileMood = Box<dyn FnMut(usize, &Op) -> Mood>;

/// First call, last call, copied.
pub(crate) type Completion = (u32, u32, bool);

pub(crate) struct Kernel {
    pub(crate) list: List,
    pub(crate) sink: Vec<u8>,
    /// Every send that was made.
    pub(crate) sends: Vec<Gather>,
    pub(crate) mood: SendMood,
    pub(crate) file_mood: Rc<RefCell<FileMood>>,
    /// The number of the next call by reference.
    pub(crate) next_call: u32,
    /// Completions that nobody has taken yet.
    pub(crate) error_queue: VecDeque<Completion>,
    /// Puts completions of these calls into the queue.
    pub(crate) completes: Box<dyn FnMut(u32) -> Vec<Completion>>,
    pub(crate) now: Duration,
    pub(crate) waits: u32,
    pub(crate) yields: u32,
    pub(crate) reaps: u32,
    /// Stops at the step of this number.
    pub(crate) stop_at: Option<usize>,
}

impl Kernel {
    pub(crate) fn new(segments: Vec<Segment>) -> Self {
        Self {
            list: List(segments),
            sink: Vec::new(),
            sends: Vec::new(),
            mood: Box::new(|_| Mood::Full),
            file_mood: Rc::new(RefCell::new(Box::new(|_, _| Mood::Full))),
            next_call: 0,
            error_queue: VecDeque::new(),
            completes: Box::new(|call| vec![(call, call, false)]),
            now: Duration::ZERO,
            waits: 0,
            yields: 0,
            reaps: 0,
            stop_at: None,
        }
    }

    pub(crate) fn with_mood(mut self, mood: impl FnMut(&Gather) -> Mood + 'static) -> Self {
        self.mood = Box::new(mood);
        self
    }

    pub(crate) fn with_file_mood(self, mood: impl FnMut(usize, &Op) -> Mood + 'static) -> Self {
        *self.file_mood.borrow_mut() = Box::new(mood);
        self
    }

    pub(crate) fn all(&self) -> Vec<u8> {
        self.list
            .0
            .iter()
            .flat_map(Segment::bytes)
            .copied()
            .collect()
    }

    /// Steps it to its end.
    pub(crate) fn run(&mut self, outbound: &mut Outbound) -> Result<SendSummary, SendError> {
        let mut moved = 0;
        for number in 0.. {
            assert!(number < 1_000_000, "it ends");
            if self.stop_at == Some(number) {
                outbound.stop(Stop::Cancelled);
            }
            let account = outbound.summary();
            assert!(account.taken >= account.moved && account.moved >= account.released);
            assert!(account.moved >= moved, "it never goes back");
            moved = account.moved;
            match outbound.next(&self.list) {
                OutboundStep::Send(gather) => self.send(outbound, gather),
                OutboundStep::File { segment } => self.file(outbound, segment),
                OutboundStep::Wait(interest) => {
                    assert_eq!(interest, Interest::SINK);
                    self.waits += 1;
                }
                OutboundStep::Yield => self.yields += 1,
                OutboundStep::Pause { until } => {
                    assert!(until > self.now, "a pause ends later");
                    self.now = until;
                    outbound.tick(self.now);
                }
                OutboundStep::Reap => {
                    self.reaps += 1;
                    self.reap(outbound);
                }
                OutboundStep::AwaitRelease => {
                    assert!(!self.error_queue.is_empty(), "waits for what never comes");
                    self.reap(outbound);
                }
                OutboundStep::Done(outcome) => {
                    assert_eq!(
                        outbound.next(&self.list),
                        OutboundStep::Done(outcome.clone())
                    );
                    return outcome;
                }
            }
        }
        unreachable!()
    }

    fn reap(&mut self, outbound: &mut Outbound) {
        while let Some((first, last, copied)) = self.error_queue.pop_front() {
            outbound.completed(first, last, copied);
        }
    }

    fn send(&mut self, outbound: &mut Outbound, gather: Gather) {
        self.sends.push(gather);
        assert!(gather.len > 0 || gather.segments > 0);
        let offered = self.gathered(&gather);
        let limit = match (self.mood)(&gather) {
            Mood::Full => offered.len(),
            Mood::Short(limit) => limit.clamp(1, offered.len()),
            Mood::Nothing => 0,
            Mood::WouldBlock => return outbound.complete(gather, Err(Errno::EAGAIN), None),
            Mood::Fails(errno) => return outbound.complete(gather, Err(errno), None),
            mood => panic!("{mood:?} is of files"),
        };
        self.sink.extend_from_slice(&offered[..limit]);
        let call = gather.zero_copy.then_some(self.next_call);
        if let Some(call) = call {
            self.next_call = call.wrapping_add(1);
            let completions = (self.completes)(call);
            self.error_queue.extend(completions);
        }
        outbound.complete(gather, Ok(limit), call);
    }

    /// The bytes that a call offers.
    fn gathered(&self, gather: &Gather) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut skip = gather.offset;
        for segment in &self.list.0[gather.segment..][..gather.segments] {
            let Segment::Memory(memory) = segment else {
                panic!("a file is not gathered");
            };
            bytes.extend_from_slice(&memory[skip..]);
            skip = 0;
        }
        let last = self.list.0[gather.segment + gather.segments - 1]
            .bytes()
            .len();
        assert!(bytes.len() >= gather.len && bytes.len() - gather.len <= last);
        bytes.truncate(gather.len);
        bytes
    }

    fn file(&mut self, outbound: &mut Outbound, segment: usize) {
        let Segment::File {
            bytes, stability, ..
        } = &self.list.0[segment]
        else {
            panic!("memory is no file");
        };
        let mut world = World::file(bytes.clone());
        world.sink = std::mem::take(&mut self.sink);
        world.now = self.now;
        let source = SourceFacts::regular(world.version());
        let sink = SinkFacts::stream_socket(InPlaceEnd::Acknowledged);
        let terms = Ask {
            stability: *stability,
            ..Ask::default()
        };
        let host = HostFacts::default();
        let begun = outbound.begin_file(&self.list, &source, &sink, &host, &terms);
        if let Some(mut transfer) = begun {
            let mood = Rc::clone(&self.file_mood);
            world.mood = Box::new(move |op| (mood.borrow_mut())(segment, op));
            let _ = world.run(&mut transfer, None);
            outbound.end_file(transfer);
        }
        self.now = world.now;
        self.sink = std::mem::take(&mut world.sink);
    }
}
