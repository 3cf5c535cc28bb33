//! Making the transfer that was explained, and measuring it: EXPLAIN ANALYZE.
//!
//! The calling thread makes every call itself (the library's blocking driver), so what the kernel
//! accounts to it is the transfer and nothing else. A rehearsal of the set-up, which examines the
//! two ends, is counted first and subtracted by name.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use zhaul::{CancelToken, Haul, Lease, Progress, Route, Stability};

use super::deviations::deviations;
use super::endpoint::Endpoint;
use super::error::{Error, Problem};
use super::explanation::{Explanation, Wishes, needs_lease};
use super::figures::{analysis, estimate_copies};
use super::instruments::Instruments;
use super::look::{Sink, Source};
use super::notes::lease_error;
use super::open::{Consent, OpenSink, OpenSource, Parting};
use super::units::amount;

/// A transfer whose ends are open.
#[derive(Debug)]
pub struct Prepared {
    source: OpenSource,
    sink: OpenSink,
    wishes: Wishes,
    explanation: Explanation,
    lease: Option<Lease>,
    patience: Duration,
}

/// A transfer that was made, or tried.
#[derive(Debug)]
pub struct Ran {
    /// With what was measured in it.
    pub explanation: Explanation,
    /// Why it ended early.
    pub stopped: Option<Error>,
}

impl Prepared {
    /// Looks at the two ends, then opens them, and plans with what they turn out to be. What exists
    /// at the sink is untouched yet.
    ///
    /// # Errors
    /// If an end cannot be had, or the transfer cannot be made.
    pub fn open(
        source: &Endpoint,
        sink: &Endpoint,
        wishes: &Wishes,
        consent: Consent,
    ) -> Result<Self, Error> {
        // What is wrong with a plan shows before anything is opened, waited for or created.
        let looked = Source::look(source)?;
        Explanation::of(&looked, &Sink::look(sink)?, wishes)?;
        drop(looked);
        let source = OpenSource::open(source, consent)?;
        let lease = match wishes.stability {
            Stability::Leased if needs_lease(&source.source.facts) => {
                let name = &source.source.about.name;
                Some(Lease::acquire(&source.fd).map_err(|error| lease_error(name, error))?)
            }
            _ => None,
        };
        let sink = OpenSink::open(sink, consent)?;
        let explanation = Explanation::of(&source.source, &sink.sink, wishes)
            .and_then(|explanation| sink.empty().map(|()| explanation))
            .inspect_err(|_| sink.discard())?;
        Ok(Self {
            source,
            sink,
            wishes: *wishes,
            explanation,
            lease,
            patience: consent.patience,
        })
    }

    /// What is about to be done.
    pub const fn explanation(&self) -> &Explanation {
        &self.explanation
    }

    /// Makes the transfer on the calling thread.
    pub fn run(mut self, instruments: bool, cancel: &CancelToken, progress: &Progress) -> Ran {
        let mut bench =
            Instruments::on_this_thread(instruments, |call| in_play(call, &self.explanation));
        let rehearsal = bench.measure(|| self.haul(cancel, progress).plan().map(drop));
        let measured = bench.measure(|| self.haul(cancel, progress).run());
        let (summary, cause) = match measured.outcome {
            Ok(summary) => (summary, None),
            Err(error) => (error.summary, Some(error.cause)),
        };
        let parting = match cause {
            None => self.sink.hang_up(self.patience),
            Some(_) => Parting::Done,
        };
        if cause.is_some() && summary.moved == 0 {
            self.sink.discard();
        }
        let mut analysis = analysis(
            &self.explanation,
            &summary,
            cause,
            &rehearsal.seen,
            &measured.seen,
        );
        estimate_copies(&mut analysis, &measured.seen, &mut bench);
        analysis.instruments = bench.names();
        analysis.deviations = deviations(&self.explanation, &analysis);
        match parting {
            Parting::Done => {}
            Parting::Reset => {
                analysis.finished = false;
                analysis.ending = Problem::Reset.to_string();
            }
            Parting::Pending(bytes) => analysis.deviations.push(format!(
                "{} were not acknowledged yet when the connection was closed",
                amount(bytes)
            )),
        }
        let what = format!(
            "{} to {}",
            self.source.source.about.name, self.sink.sink.about.name
        );
        let stopped = cause.map(|cause| {
            let problem = Problem::Stopped {
                cause,
                moved: summary.moved,
                stranded: summary.stranded,
            };
            Error::new(&what, problem)
        });
        let reset = || (parting == Parting::Reset).then(|| Error::new(&what, Problem::Reset));
        let stopped = stopped.or_else(reset);
        self.explanation.measured = Some(analysis);
        Ran {
            explanation: self.explanation,
            stopped,
        }
    }

    fn haul<'a>(
        &'a self,
        cancel: &'a CancelToken,
        progress: &'a Progress,
    ) -> Haul<'a, BorrowedFd<'a>, BorrowedFd<'a>> {
        let mut haul = zhaul::transfer(self.source.fd.as_fd(), self.sink.fd.as_fd())
            .offset(self.explanation.asked.offset)
            .chunk_bytes(self.wishes.chunk_bytes)
            .stability(self.wishes.stability)
            .cancel(cancel)
            .progress(progress);
        if let Some(bytes) = self.explanation.asked.length {
            haul = haul.length(bytes);
        }
        if let Some(route) = self.wishes.route {
            haul = haul.only(route);
        }
        if let Some(lease) = &self.lease {
            haul = haul.lease(lease);
        }
        haul
    }
}

/// Whether the transfer may make this call: on its route, or on one that it may fall back to.
fn in_play(call: &str, explanation: &Explanation) -> bool {
    let Explanation {
        plan, source, sink, ..
    } = explanation;
    let reserve = plan.passed_over.iter().filter(|other| other.in_reserve);
    let mut routes = reserve
        .map(|other| other.route.as_str())
        .chain([plan.route.as_str()]);
    let mut takes = |route: Route| routes.any(|name| name == route.name());
    match call {
        "sendfile" => takes(Route::Sendfile),
        "splice" => takes(Route::Splice),
        "copy_file_range" => takes(Route::CopyFileRange),
        "mmap" | "madvise" | "munmap" => takes(Route::MmapWrite),
        "recvfrom" => source.kind == "stream_socket",
        "pread64" => source.seekable,
        "sendto" => sink.kind.ends_with("_socket"),
        _ => true,
    }
}
