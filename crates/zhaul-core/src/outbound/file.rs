//! The files of an aggregate: each is a transfer, which goes on with the aggregate's account of budget
//! and rate.

use crate::ask::{Ask, Length};
use crate::error::Cause;
use crate::facts::{HostFacts, SinkFacts, SourceFacts};
use crate::op::Step;
use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::transfer::{Stop, Transfer};

use super::{Outbound, SegmentFacts, SegmentList};

impl Outbound {
    /// Makes the transfer of the file that [`OutboundStep::File`](super::OutboundStep::File) named, to be driven and handed
    /// back to [`end_file`](Self::end_file). `None` if there can be none: then it is over.
    ///
    /// Of the wishes for this file, those about who else may write to it count
    /// ([`Ask::stability`], [`Ask::version_is_fresh`], [`Ask::one_version`], [`Ask::ctime_is_edit`]);
    /// all others are those of the aggregate. A version is no longer fresh when the machine has waited,
    /// or another file was sent, since. The transfer keeps the account of budget and rate
    /// meanwhile, and goes by the same clock.
    pub fn begin_file(
        &mut self,
        segments: &(impl SegmentList + ?Sized),
        source: &SourceFacts,
        sink: &SinkFacts,
        host: &HostFacts,
        file: &Ask,
    ) -> Option<Transfer> {
        debug_assert!(!self.lent, "one file at a time");
        let facts = segments.facts(self.place.segment)?;
        let SegmentFacts::File { offset, len } = facts else {
            return None;
        };
        let ask = Ask {
            offset: offset.saturating_add(self.place.offset),
            length: Length::Exact(len - self.place.offset),
            sink_offset: None,
            stability: file.stability,
            version_is_fresh: file.version_is_fresh && !self.has_rested,
            one_version: file.one_version,
            ctime_is_edit: file.ctime_is_edit,
            throttle: None,
            more_follows: self.follows(segments, self.place.segment + 1),
            ..self.ask
        };
        if !source.seekable {
            self.end(Cause::Refused {
                refusal: Refusal::SourceIsStream,
            });
            return None;
        }
        let plan = Plan::select(source, sink, host, &ask);
        match Transfer::new(plan, source, sink, host, &ask) {
            Ok(mut transfer) => {
                transfer.exchange_limits(&mut self.limits);
                self.lent = true;
                Some(transfer)
            }
            Err(error) => {
                self.end(error.cause);
                None
            }
        }
    }

    /// Reports that others had their turn, or time has passed, since files were examined: their
    /// versions are not fresh any more ([`Ask::version_is_fresh`]). What a step of this machine
    /// waited for it knows.
    pub const fn time_passed(&mut self) {
        self.has_rested = true;
    }

    pub(super) const fn rest(&mut self) {
        self.limits.rest();
        self.time_passed();
    }

    /// Takes back the transfer of a file, which is over; one that is not is cancelled.
    pub fn end_file(&mut self, mut transfer: Transfer) {
        debug_assert!(self.lent, "a file was begun");
        if !transfer.is_over() {
            transfer.stop(Stop::Cancelled);
        }
        self.lent = false;
        // It may have waited.
        self.has_rested = true;
        transfer.exchange_limits(&mut self.limits);
        let summary = transfer.summary();
        self.calls += summary.calls;
        self.advance(summary.moved);
        self.files.push(summary);
        if let Step::Done(Err(error)) = transfer.next() {
            self.leased_in_flight = error.in_flight;
            self.end(error.cause);
        } else if let Some(stop) = self.stop {
            self.end(stop.cause());
        }
    }
}
