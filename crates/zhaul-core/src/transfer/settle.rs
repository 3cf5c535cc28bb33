//! What follows from a result: going on, waiting, another route, the end.

use crate::errno::Errno;
use crate::error::Cause;
use crate::op::{Interest, Op, Operation};
use crate::route::Route;
use crate::summary::{Ending, RouteChange, Why};

use super::guard::Check;
use super::mmap_write::MmapWrite;
use super::read_write::ReadWrite;
use super::splice::Splice;
use super::{Machine, Transfer};

/// What a route makes of a result.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// The ledger is up to date; go on.
    Progress,
    /// Nothing happened; wait.
    Blocked(Interest),
    /// The source has no more.
    SourceEnded,
    /// The version decides what the result means.
    Ask(Check),
    /// The route ends here, with nothing in transit.
    Fall(Why),
    /// The transfer ends here.
    Fail(Cause),
}

impl Transfer {
    pub(super) fn settle(&mut self, outcome: Outcome) {
        if let Some(stop) = self.stop {
            // Flushing what was in transit: whatever came of it, this is the end, unless more of
            // it can go at once.
            let goes_on = matches!(outcome, Outcome::Progress) && self.ledger.in_transit() > 0;
            if !goes_on {
                self.end(stop.cause());
            }
            return;
        }
        match outcome {
            Outcome::Progress => {}
            Outcome::Blocked(interest) => self.blocked = Some(interest),
            Outcome::SourceEnded => self.source_ended(),
            Outcome::Ask(check) => self.guard.check = Some(check),
            Outcome::Fall(why) => self.fall(why),
            Outcome::Fail(cause) => self.end(cause),
        }
    }

    pub(super) fn source_ended(&mut self) {
        if self.ledger.moved == 0 && self.lets_read_confirm() {
            return;
        }
        let exact = self.ledger.remaining().is_some();
        let is_early = exact || self.guard.is_early_end(self.ledger.offset());
        if self.guard.knows_version() && (is_early || self.route() == Route::MmapWrite) {
            self.guard.check = Some(Check::End);
        } else if exact {
            self.end(Cause::SourceEnded);
        } else {
            self.finish(Ending::SourceEnd);
        }
    }

    /// The source says that it has no more, and fstat that it has.
    pub(super) fn suspect_end(&mut self) {
        // A mapping was not asked: the last look at the size was.
        if self.route() != Route::MmapWrite {
            self.lets_read_confirm();
        }
    }

    /// A read has the last word about the end of a file. False if it has been heard, or must not be.
    fn lets_read_confirm(&mut self) -> bool {
        let unconfirmed = matches!(
            self.route(),
            Route::Sendfile | Route::Splice | Route::CopyFileRange
        );
        let confirms = unconfirmed && self.ledger.is_seekable() && !self.only;
        if confirms {
            self.change_route(Route::ReadWrite, Why::EndUnconfirmed);
        }
        confirms
    }

    pub(super) fn fall(&mut self, why: Why) {
        debug_assert_eq!(
            self.ledger.in_transit(),
            0,
            "a route is left at a byte-exact point"
        );
        let next = if self.only {
            None
        } else {
            self.plan.after(self.route())
        };
        match next {
            Some(route) => self.change_route(route, why),
            None => self.end(match why {
                Why::Refused { operation, errno } => Cause::Io { operation, errno },
                Why::PipePoolExhausted
                | Why::PipeAgain
                | Why::EndUnconfirmed
                | Why::CopiedAfterAll => Cause::Io {
                    operation: Operation::Splice,
                    errno: Errno::EMFILE,
                },
            }),
        }
    }

    pub(super) fn change_route(&mut self, to: Route, why: Why) {
        self.note_change(self.route(), to, why);
        self.machine = self.machine_for(to);
    }

    pub(super) fn note_change(&mut self, from: Route, to: Route, why: Why) {
        self.changes.push(RouteChange {
            from,
            to,
            moved: self.ledger.moved,
            why,
        });
    }

    pub(super) fn machine_for(&self, route: Route) -> Machine {
        match route {
            Route::ReadWrite => Machine::ReadWrite(ReadWrite::default()),
            Route::MmapWrite => Machine::MmapWrite(MmapWrite::new(&self.host, &self.guard)),
            Route::Sendfile => Machine::Sendfile,
            Route::Splice => Machine::Splice(Splice::new(&self.ledger)),
            Route::CopyFileRange => Machine::CopyFileRange,
        }
    }
}

pub(super) fn failure(operation: Operation, errno: Errno) -> Outcome {
    if errno.is_refusal() {
        Outcome::Fall(Why::Refused { operation, errno })
    } else {
        Outcome::Fail(Cause::Io { operation, errno })
    }
}

/// The report is of an operation that the route did not name. To go on would be to name the same one
/// for ever.
pub(super) fn foreign(op: Op) -> Outcome {
    Outcome::Fail(Cause::Io {
        operation: op.operation(),
        errno: Errno::EINVAL,
    })
}
