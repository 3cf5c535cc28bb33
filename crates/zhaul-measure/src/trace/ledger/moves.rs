//! Calls that move bytes between a descriptor and the program's memory.

use std::ops::Range;
use std::rc::Rc;

use super::super::calls::{Followed, Span};
use super::super::contract;
use super::super::event::Call;
use super::super::memory::{Piece, Portion, share};
use super::super::object::{Kind, Object};
use super::super::route::Route;
use super::super::summary::ZEROCOPY;
use super::super::world::World;
use super::Ledger;
use super::descriptors::fd;

/// Where in memory the bytes of a call are.
struct Place {
    ranges: Vec<Range<u64>>,
    /// Read later than the call: what is there may be of another call.
    late: bool,
}

impl Place {
    /// At most so many bytes of it, in one piece.
    fn take_front(&mut self, bytes: u64) -> Option<Range<u64>> {
        let first = self.ranges.first_mut()?;
        let end = first.end.min(first.start + bytes);
        let taken = first.start..end;
        first.start = end;
        if first.is_empty() {
            self.ranges.remove(0);
        }
        Some(taken)
    }
}

impl<W: World> Ledger<W> {
    pub(super) fn input(
        &mut self,
        call: &Call,
        known: &Followed,
        span: Span,
        flags: Option<usize>,
        exact: u64,
    ) {
        let pid = call.task.pid;
        let source = self.object(pid, fd(call.arguments[0]));
        self.book_pages(call.task, Some(&source), None);
        let mut bytes = call.result.unsigned_abs();
        if span == Span::Buffer {
            // MSG_TRUNC says how long a datagram was, not how much of it was stored.
            bytes = bytes.min(call.arguments[2]);
        }
        // Whatever it is that comes: it replaces what was there.
        let mut place = self.place(call, span, bytes);
        if let Some(place) = place.as_ref().filter(|place| !place.late) {
            for range in &place.ranges {
                self.overwritten(pid, range.clone());
            }
        }
        if source.kind() == Kind::Event {
            self.account(known.name, 0, exact);
            return;
        }
        let flags = flags.map_or(0, |index| call.arguments[index] as i32);
        if flags & libc::MSG_ERRQUEUE != 0 {
            // The kernel's news, with a piece of what was sent.
            self.account(known.name, 0, exact);
            return;
        }
        let discards = flags & libc::MSG_TRUNC != 0 && source.kind() == Kind::Tcp;
        let contract = contract::input(source.kind());
        let copied = self.cost(exact, if discards { 0 } else { contract * bytes });
        self.account(known.name, bytes, copied);
        let route = Route::of(match (flags & libc::MSG_PEEK != 0, discards) {
            (true, _) => "recv(MSG_PEEK)",
            (_, true) => "recv(MSG_TRUNC)",
            _ => known.name,
        });
        let portion = Portion {
            source: Rc::clone(&source),
            route,
            bytes,
            copied,
        };
        if discards || flags & libc::MSG_PEEK != 0 {
            self.stayed(vec![portion]);
            return;
        }
        self.sums.bytes_in += bytes;
        for portion in self.out_of_pipe(&source, portion) {
            self.put(call, place.as_mut(), portion);
        }
    }

    /// What came out of a pipe is what was spliced into it.
    fn out_of_pipe(&mut self, source: &Object, mut portion: Portion) -> Vec<Portion> {
        let Some(pipe) = source.pipe_id() else {
            return vec![portion];
        };
        let call = portion.route.calls()[0];
        let taken = self.pipes.take(pipe, portion.bytes);
        let mut portions = Vec::new();
        for mut passing in taken.passing {
            let read = portion.split_front(passing.bytes);
            passing.copied += read.copied;
            passing.route = passing.route.then(call);
            portions.push(passing);
        }
        if portion.bytes > 0 {
            portions.push(portion);
        }
        portions
    }

    /// Bytes are in the program's memory now, at the beginning of `place`, of which the rest is left.
    fn put(&mut self, call: &Call, place: Option<&mut Place>, mut portion: Portion) {
        let Some(place) = place.filter(|place| !place.late) else {
            let replaced = self.thread(call.task).last_input.replace(portion);
            self.stayed(replaced.into_iter().collect());
            return;
        };
        let mut unsent = Vec::new();
        let moment = self.moment(call.task.pid);
        while portion.bytes > 0
            && let Some(range) = place.take_front(portion.bytes)
        {
            let piece = portion.split_front(range.end - range.start);
            let inputs = &mut self.process(call.task.pid).inputs;
            unsent.extend(inputs.put(range.start, piece, moment));
        }
        self.stayed(unsent);
    }

    pub(super) fn output(
        &mut self,
        call: &Call,
        known: &Followed,
        span: Span,
        flags: Option<usize>,
        exact: u64,
    ) {
        let sink = self.object(call.task.pid, fd(call.arguments[0]));
        let bytes = call.result.unsigned_abs();
        self.book_pages(call.task, None, Some(&sink));
        if sink.kind() == Kind::Event {
            self.account(known.name, 0, exact);
            return;
        }
        let flags = flags.map_or(0, |index| call.arguments[index] as i32);
        let zerocopy = flags & libc::MSG_ZEROCOPY != 0 && sink.takes_zerocopy();
        let contract = if zerocopy {
            0
        } else {
            contract::output(sink.kind())
        };
        let copied = self.cost(exact, contract * bytes);
        self.account(known.name, bytes, copied);
        self.sums.bytes_out += bytes;
        let name = if zerocopy { ZEROCOPY } else { known.name };
        let place = self.place(call, span, bytes);
        let portions = self.origins(call, place.as_ref(), bytes);
        for (mut portion, inferred) in portions {
            portion.copied += share(copied, portion.bytes, bytes);
            portion.route = portion.route.then(name);
            self.flows.arrive(&portion, &sink, inferred);
            if let Some(pipe) = sink.pipe_id() {
                let given_up = self.pipes.write_in(pipe, portion);
                self.stayed_in_pipe(given_up);
            }
        }
    }

    /// Where the bytes that a call takes out of memory came from, with what they cost on their way
    /// in, and whether that is inferred.
    pub(super) fn memory_origins(
        &mut self,
        call: &Call,
        span: Span,
        bytes: u64,
    ) -> Vec<(Portion, bool)> {
        let place = self.place(call, span, bytes);
        self.origins(call, place.as_ref(), bytes)
    }

    /// Bytes that came from a pipe were put into memory.
    pub(super) fn put_from_pipe(&mut self, call: &Call, portions: Vec<Portion>) {
        let bytes = portions.iter().map(|portion| portion.bytes).sum();
        let mut place = self.place(call, Span::Vectors, bytes);
        for portion in portions {
            self.put(call, place.as_mut(), portion);
        }
    }

    fn origins(&mut self, call: &Call, place: Option<&Place>, bytes: u64) -> Vec<(Portion, bool)> {
        let Some(place) = place.filter(|place| !place.late || !self.has_last_input(call)) else {
            return self.inferred_origins(call, bytes);
        };
        let mut origins = Vec::new();
        let moment = self.moment(call.task.pid);
        for range in &place.ranges {
            let inputs = &mut self.process(call.task.pid).inputs;
            for (range, piece) in inputs.send(range.clone(), moment) {
                let unknown = Self::out_of_memory(&self.unknown, range.end - range.start);
                match piece {
                    Piece::Known(portion) => origins.push((portion, place.late)),
                    Piece::Sent => origins.push((unknown, place.late)),
                    Piece::Old(portion) => {
                        self.stayed(vec![portion]);
                        origins.push((unknown, place.late));
                    }
                    Piece::Nothing => {
                        self.mapped_origins(call.task.pid, range, place.late, &mut origins);
                    }
                }
            }
        }
        origins
    }

    fn has_last_input(&self, call: &Call) -> bool {
        let thread = self.threads.get(&call.task.tid);
        thread.is_some_and(|thread| thread.last_input.is_some())
    }

    /// Without an address: the thread's last input, as far as it reaches.
    fn inferred_origins(&mut self, call: &Call, bytes: u64) -> Vec<(Portion, bool)> {
        let last = &mut self.thread(call.task).last_input;
        let mut origins = Vec::new();
        let mut left = bytes;
        if let Some(mut input) = last.take() {
            let portion = input.split_front(bytes);
            left -= portion.bytes;
            origins.push((portion, true));
            *last = Some(input).filter(|rest| rest.bytes > 0);
        }
        if left > 0 {
            origins.push((self.made_by_program(left), false));
        }
        origins
    }

    /// A range that no call filled: mapped files, and what the program made.
    fn mapped_origins(
        &mut self,
        pid: u32,
        range: Range<u64>,
        late: bool,
        origins: &mut Vec<(Portion, bool)>,
    ) {
        self.learn_mappings(pid);
        let mut at = range.start;
        while at < range.end {
            let mappings = &self.process(pid).mappings;
            let mapped = mappings.at(at).filter(|(_, file)| !file.is_image());
            let (end, portion) = match mapped {
                Some((end, source)) => {
                    let end = end.min(range.end);
                    let portion = Portion {
                        source,
                        route: Route::of("mmap"),
                        bytes: end - at,
                        copied: 0,
                    };
                    (end, portion)
                }
                None => {
                    let own = mappings.at(at).map(|(end, _)| end);
                    let next = own.or_else(|| mappings.next_above(at));
                    let end = next.map_or(range.end, |next| next.min(range.end));
                    (end, self.made_by_program(end - at))
                }
            };
            at = end;
            origins.push((portion, late));
        }
    }

    fn made_by_program(&self, bytes: u64) -> Portion {
        Self::out_of_memory(&self.program, bytes)
    }

    /// Bytes that no call was seen to bring.
    fn out_of_memory(source: &Rc<Object>, bytes: u64) -> Portion {
        Portion {
            source: Rc::clone(source),
            route: Route::default(),
            bytes,
            copied: 0,
        }
    }

    /// Reads the list of mappings of a process that was there before us.
    fn learn_mappings(&mut self, pid: u32) {
        if std::mem::replace(&mut self.process(pid).mappings_are_known, true) {
            return;
        }
        let mut images = Vec::new();
        let mut files = Vec::new();
        for mapped in self.world.mappings(pid) {
            if mapped.executable {
                images.push(mapped.file.file);
            }
            files.push(mapped);
        }
        for mapped in files {
            let is_image = images.contains(&mapped.file.file);
            let mappable = matches!(mapped.file.kind, Kind::File | Kind::BlockDevice);
            if mappable && !is_image {
                let object = Object::mapped(mapped.file);
                self.process(pid).mappings.map(mapped.range, object);
            }
        }
    }

    /// Where the first `bytes` bytes of a call are.
    fn place(&mut self, call: &Call, span: Span, bytes: u64) -> Option<Place> {
        let [_, address, count, ..] = call.arguments;
        let (array, count, late) = match span {
            Span::Buffer => {
                let range = address..address.checked_add(bytes)?;
                return Some(Place {
                    ranges: vec![range],
                    late: false,
                });
            }
            Span::Vectors => (address, count, false),
            Span::Message => {
                let (header, late) = self.arguments_at(call, address, MSGHDR_BYTES)?;
                (word(&header, MSG_IOV), word(&header, MSG_IOVLEN), late)
            }
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= IOV_MAX)?;
        let (vectors, later) = self.arguments_at(call, array, count * IOVEC_BYTES)?;
        let mut left = bytes;
        let mut ranges = Vec::new();
        for vector in vectors.chunks_exact(IOVEC_BYTES) {
            let (start, length) = (word(vector, 0), word(vector, 8).min(left));
            if length > 0 {
                ranges.push(start..start.checked_add(length)?);
                left -= length;
            }
        }
        // Shorter than what was moved: this is not the array that the call saw.
        (left == 0).then_some(Place {
            ranges,
            late: late || later,
        })
    }
}

/// The word at this offset.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..at + 8].try_into();
    u64::from_ne_bytes(word.unwrap_or_default())
}

/// `struct msghdr` and `struct iovec` on 64-bit Linux.
pub(super) const MSGHDR_BYTES: usize = 56;
const MSG_IOV: usize = 16;
const MSG_IOVLEN: usize = 24;
const IOVEC_BYTES: usize = 16;
const IOV_MAX: usize = 1024;
