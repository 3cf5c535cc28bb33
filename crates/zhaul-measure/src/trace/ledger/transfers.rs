//! Calls that move bytes between two descriptors without the program's memory.

use std::rc::Rc;

use super::super::calls::{Followed, Span};
use super::super::contract;
use super::super::event::Call;
use super::super::memory::{Portion, share};
use super::super::object::{Kind, Object, PipeId};
use super::super::route::Route;
use super::super::world::World;
use super::Ledger;
use super::descriptors::fd;

impl<W: World> Ledger<W> {
    /// `sendfile(out, in, offset, count)`.
    pub(super) fn sendfile(&mut self, call: &Call, bytes: u64, exact: u64) {
        let sink = self.object(call.task.pid, fd(call.arguments[0]));
        let source = self.object(call.task.pid, fd(call.arguments[1]));
        source.confirm();
        self.book_pages(call.task, Some(&source), Some(&sink));
        let contract = contract::into_pages(source.kind()) + contract::out_of_pages(sink.kind());
        let copied = self.cost(exact, contract * bytes);
        self.account("sendfile", bytes, copied);
        self.sums.bytes_through += bytes;
        let portion = Portion {
            source,
            route: Route::of("sendfile"),
            bytes,
            copied,
        };
        self.move_on(portion, &sink);
    }

    /// `splice(in, offset, out, offset, length, flags)`.
    pub(super) fn splice(&mut self, call: &Call, bytes: u64, exact: u64) {
        let source = self.object(call.task.pid, fd(call.arguments[0]));
        let sink = self.object(call.task.pid, fd(call.arguments[2]));
        self.book_pages(call.task, Some(&source), Some(&sink));
        let contract = if sink.kind() == Kind::Pipe {
            contract::into_pages(source.kind())
        } else {
            contract::out_of_pages(sink.kind())
        };
        let copied = self.cost(exact, contract * bytes);
        self.account("splice", bytes, copied);
        for mut portion in self.spliced_from(&source, bytes, false) {
            portion.copied += share(copied, portion.bytes, bytes);
            portion.route = portion.route.then("splice");
            self.move_on(portion, &sink);
        }
        // Through the pipe and out of it again is once through.
        if sink.kind() != Kind::Pipe {
            self.sums.bytes_through += bytes;
        }
    }

    /// `tee(in, out, length, flags)`: both are pipes.
    pub(super) fn tee(&mut self, call: &Call, bytes: u64, exact: u64) {
        let source = self.object(call.task.pid, fd(call.arguments[0]));
        let sink = self.object(call.task.pid, fd(call.arguments[1]));
        let copied = self.cost(exact, 0);
        self.account("tee", bytes, copied);
        for mut portion in self.spliced_from(&source, bytes, true) {
            portion.copied += share(copied, portion.bytes, bytes);
            portion.route = portion.route.then("tee");
            self.move_on(portion, &sink);
        }
    }

    /// `vmsplice(pipe, vectors, count, flags)`: into the pipe by reference, out of it by copying.
    pub(super) fn vmsplice(&mut self, call: &Call, bytes: u64, exact: u64) {
        let pipe = self.object(call.task.pid, fd(call.arguments[0]));
        if !pipe.is_writable() {
            let copied = self.cost(exact, bytes);
            self.account("vmsplice", bytes, copied);
            self.sums.bytes_in += bytes;
            let mut portions = self.spliced_from(&pipe, bytes, false);
            for portion in &mut portions {
                portion.copied += share(copied, portion.bytes, bytes);
                portion.route = portion.route.then("vmsplice");
            }
            self.put_from_pipe(call, portions);
            return;
        }
        let copied = self.cost(exact, 0);
        self.account("vmsplice", bytes, copied);
        self.sums.bytes_out += bytes;
        for (mut portion, inferred) in self.memory_origins(call, Span::Vectors, bytes) {
            portion.copied += share(copied, portion.bytes, bytes);
            portion.route = portion.route.then("vmsplice");
            if inferred {
                self.flows.arrive(&portion, &pipe, true);
            } else {
                self.move_on(portion, &pipe);
            }
        }
    }

    /// `copy_file_range(in, offset, out, offset, length, flags)`.
    pub(super) fn copy_file_range(&mut self, call: &Call, bytes: u64, exact: u64) {
        let source = self.object(call.task.pid, fd(call.arguments[0]));
        let sink = self.object(call.task.pid, fd(call.arguments[2]));
        source.confirm();
        sink.confirm();
        // A file system that can share blocks does so, unless the ends do not fit; then it copies.
        // Sharing fills no page of the page cache.
        let pages = self.book_pages(call.task, Some(&source), Some(&sink));
        let shared = sink.shares_blocks() && pages == 0;
        let copied = self.cost(exact, if shared { 0 } else { bytes });
        self.account("copy_file_range", bytes, copied);
        self.sums.bytes_through += bytes;
        let portion = Portion {
            source,
            route: Route::of("copy_file_range"),
            bytes,
            copied,
        };
        self.move_on(portion, &sink);
    }

    /// `ioctl(out, FICLONE, in)` shares all blocks of a file.
    pub(super) fn ioctl(&mut self, call: &Call) {
        if call.arguments[1] as u32 != FICLONE {
            return;
        }
        let pid = call.task.pid;
        let sink = self.object(pid, fd(call.arguments[0]));
        let number = fd(call.arguments[2]);
        let source = self.object(pid, number);
        let bytes = self.file_bytes(pid, number).unwrap_or(0);
        let account = self.calls.entry("ioctl(FICLONE)").or_default();
        account.calls += 1;
        self.sums.calls += 1;
        self.account("ioctl(FICLONE)", bytes, 0);
        self.sums.bytes_through += bytes;
        let portion = Portion {
            source,
            route: Route::of("ioctl(FICLONE)"),
            bytes,
            copied: 0,
        };
        self.flows.arrive(&portion, &sink, false);
    }

    pub(super) fn other_memory(&mut self, known: &Followed, bytes: u64, exact: u64) {
        let copied = self.cost(exact, bytes);
        self.account(known.name, bytes, copied);
        self.sums.bytes_through += bytes;
        let portion = Portion {
            source: Rc::clone(&self.program),
            route: Route::of(known.name),
            bytes,
            copied,
        };
        let program = Rc::clone(&self.program);
        self.flows.arrive(&portion, &program, false);
    }

    /// What a splice takes out of `source`: from a pipe, what was spliced into it.
    fn spliced_from(&mut self, source: &Rc<Object>, bytes: u64, only_look: bool) -> Vec<Portion> {
        let own = |bytes| Portion {
            source: Rc::clone(source),
            route: Route::default(),
            bytes,
            copied: 0,
        };
        let Some(pipe) = source.pipe_id() else {
            return vec![own(bytes)];
        };
        let taken = if only_look {
            self.pipes.look(pipe, bytes)
        } else {
            self.pipes.take(pipe, bytes)
        };
        let mut portions = taken.passing;
        if taken.own_bytes > 0 {
            portions.push(own(taken.own_bytes));
        }
        portions
    }

    /// A portion goes into a pipe, on its way, or arrives.
    fn move_on(&mut self, portion: Portion, sink: &Rc<Object>) {
        match sink.pipe_id() {
            Some(pipe) => self.enter_pipe(pipe, portion),
            None => self.flows.arrive(&portion, sink, false),
        }
    }

    fn enter_pipe(&mut self, pipe: PipeId, portion: Portion) {
        let given_up = self.pipes.splice_in(pipe, portion);
        self.stayed_in_pipe(given_up);
    }
}

/// `_IOW(0x94, 9, int)`.
pub(super) const FICLONE: u32 = 0x4004_9409;
