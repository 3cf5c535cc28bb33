//! Records of several rings, put in the order of time. Pure.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::super::record::{Class, Kind, Layout, Record, take_frame};
use super::Drained;
use super::once::Once;

/// What was taken from the rings and not yet handed out.
#[derive(Debug, Default)]
pub(super) struct Merge {
    bytes: Vec<u8>,
    /// Those in `bytes`.
    held: Vec<Held>,
    /// What the records of an event hold, by its identifier.
    sources: HashMap<u64, Origin>,
    once: Once,
    /// Everything up to here was stored when the last round began.
    settled_ns: u64,
    newest_ns: u64,
    lost: u64,
    /// Since the last hand-out.
    misread: u64,
}

/// What is known of an identifier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) layout: Layout,
    /// The thread the event was attached to; `None` for a whole CPU.
    pub(super) tid: Option<u32>,
}

/// The making of a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fork {
    pub(super) parent_tid: u32,
    pub(super) time_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    time_ns: u64,
    at: usize,
    end: usize,
    origin: Origin,
}

impl Merge {
    /// Records with this identifier are of that origin.
    pub(super) fn learn(&mut self, identifier: u64, origin: Origin) {
        self.sources.insert(identifier, origin);
    }

    /// The session attached to this thread.
    pub(super) fn attached_to(&mut self, tid: u32, now_ns: u64) {
        self.once.attached_to(tid, now_ns);
    }

    /// The threads whose making is told by records not yet handed out: who made them, and when.
    pub(super) fn forks(&self) -> HashMap<u32, Fork> {
        let records = self.held.iter().filter_map(|held| {
            let mut frame = &self.bytes[held.at..held.end];
            take_frame(&mut frame)?.decode(held.origin.layout)
        });
        records
            .filter_map(|record| match record.kind {
                Kind::Fork { parent_tid, .. } => Some((
                    record.tid,
                    Fork {
                        parent_tid,
                        time_ns: record.time_ns,
                    },
                )),
                _ => None,
            })
            .collect()
    }

    /// Takes in the records of one ring, which `take` appends. Those of events from outside of
    /// `within` are passed over; those of forks, exits and names are not.
    pub(super) fn add(
        &mut self,
        within: &RangeInclusive<u64>,
        take: impl FnOnce(&mut Vec<u8>) -> usize,
    ) {
        let mut at = self.bytes.len();
        take(&mut self.bytes);
        let mut rest = &self.bytes[at..];
        while let Some(frame) = take_frame(&mut rest) {
            let end = self.bytes.len() - rest.len();
            let known = frame
                .identifier()
                .and_then(|identifier| self.sources.get(&identifier))
                .and_then(|origin| Some((*origin, frame.time_ns(origin.layout)?)));
            match known {
                Some((origin, time_ns)) => {
                    if within.contains(&time_ns) || origin.layout.class == Class::Task {
                        self.held.push(Held {
                            time_ns,
                            at,
                            end,
                            origin,
                        });
                    }
                }
                None => self.misread += (end - at) as u64,
            }
            at = end;
        }
        self.misread += rest.len() as u64;
        // So that the next ring's records begin behind whole ones.
        self.bytes.truncate(at);
    }

    /// Hands out the records up to the beginning of the round before this one, which began at
    /// `round_ns`: a CPU needs far less than a round to store a record once it has its time.
    pub(super) fn emit(&mut self, round_ns: u64, each: impl FnMut(Record<'_>)) -> Drained {
        let until_ns = std::mem::replace(&mut self.settled_ns, round_ns);
        self.emit_until(until_ns, each)
    }

    /// Hands out everything.
    pub(super) fn emit_all(&mut self, each: impl FnMut(Record<'_>)) -> Drained {
        self.emit_until(u64::MAX, each)
    }

    /// Lost records, as far as records told so.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn emit_until(&mut self, until_ns: u64, mut each: impl FnMut(Record<'_>)) -> Drained {
        // Stable: what one ring stored in the same nanosecond stays in its order.
        self.held.sort_by_key(|held| held.time_ns);
        let due = self.held.partition_point(|held| held.time_ns <= until_ns);
        let mut drained = Drained {
            misread: std::mem::take(&mut self.misread),
            ..Drained::default()
        };
        let bytes = std::mem::take(&mut self.bytes);
        for held in self.held.drain(..due) {
            let mut frame = &bytes[held.at..held.end];
            let record = take_frame(&mut frame).and_then(|frame| frame.decode(held.origin.layout));
            let Some(record) = record else {
                drained.misread += (held.end - held.at) as u64;
                continue;
            };
            let (event, attached_to) = (held.origin.layout.event, held.origin.tid);
            if attached_to.is_some_and(|tid| !self.once.accept(event, tid, &record)) {
                continue;
            }
            if let Kind::Lost { records } = record.kind {
                drained.lost += records;
            }
            drained.late += u64::from(record.time_ns < self.newest_ns);
            self.newest_ns = self.newest_ns.max(record.time_ns);
            drained.records += 1;
            each(record);
        }
        self.lost += drained.lost;
        self.keep(bytes);
        drained
    }

    /// Moves the bytes of the records that are still held to the front.
    fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.held.is_empty() {
            bytes.clear();
            self.bytes = bytes;
            return;
        }
        let mut kept = Vec::with_capacity(bytes.len() / 2);
        for held in &mut self.held {
            let at = kept.len();
            kept.extend_from_slice(&bytes[held.at..held.end]);
            (held.at, held.end) = (at, kept.len());
        }
        self.bytes = kept;
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
