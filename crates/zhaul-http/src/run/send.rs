//! Sending an answer that has to wait for somebody: the client, a disk, or an editor.
//!
//! What is sent is an aggregate, by [`zhaul::send()`], which picks the routes. What is decided here
//! is what a failure means to the client: once a head with a Content-Length is out, the only
//! honest sign that the rest will not come is a connection that ends before it.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use zhaul::async_io::{acknowledged, warm};
use zhaul::cold::ColdPool;
use zhaul::lease::Lease;
use zhaul::residency::ResidencyCache;
use zhaul::send::SendState;
use zhaul::{Aggregate, Cause, Segment, SendError, SendSummary, Stability, Stop, Summary};

use crate::answer::failure::given_up;
use crate::files::chunk::{self, Chunk, Trouble};
use crate::files::entry::Representation;
use crate::files::lookup::Selected;
use crate::files::storage::TimedOut;
use crate::run::account::Account;
use crate::run::answer::{Answer, Begun, Exchange, FIRST_BYTES, State};
use crate::run::connection::{Connection, Phase};
use crate::run::terms::Terms;
use crate::run::worker::Worker;
use crate::wire::h1::{self, Framing, Rest};

/// An answer from here up counts as a long one when connections are spread over workers.
const LARGE_ANSWER_BYTES: u64 = 1024 * 1024;
/// How long a broken lease may wait for a client to acknowledge what is in flight. The kernel
/// takes the lease away after `fs.lease-break-time`, 45 s by default.
const LEASE_GRACE: Duration = Duration::from_secs(10);

/// Sends `answer`, or what has to take its place; false if the connection is of no use
/// afterwards.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    answer: &mut Answer,
) -> bool {
    connection.enter(Phase::Working);
    let mut first = None;
    if let State::Written(message) = &answer.state {
        match prepare(worker, &message.rest).await {
            Ok(chunk) => first = chunk,
            Err(status) => {
                let exchange = answer.take_exchange();
                *answer = give_up(worker, connection, exchange, status);
            }
        }
    }
    let state = std::mem::replace(&mut answer.state, State::Over);
    let fresh = answer.batch == worker.reactor.batch();
    let account = &answer.ending.account;
    connection.enter(Phase::Sending);
    let sent = match state {
        State::Written(message) => {
            let mut terms = match account.selected() {
                Some(selected) => Terms::of(worker.site(), selected.file(), fresh, &worker.reports),
                None => Terms::plain(worker.site().config.stability),
            };
            let all = message.into_aggregate(|file, range| terms.range(file, range));
            let all = SendState::new(all);
            deliver(worker, connection, account, terms, all, first).await
        }
        State::Begun(begun) => {
            let Begun {
                sending,
                yields,
                terms,
            } = *begun;
            if yields {
                connection.yield_turn().await;
            }
            deliver(worker, connection, account, terms, sending, None).await
        }
        State::Over => false,
    };
    if !sent {
        connection.stream.abort_queued();
        return false;
    }
    answer.ending.complete = true;
    connection.served.set(connection.served.get() + 1);
    true
}

/// Makes sure that the first bytes of a file can be read, while an error can still be told; gives
/// them if they had to be read into memory.
///
/// # Errors
/// The status to be answered with instead.
async fn prepare(worker: &Worker, rest: &Rest) -> Result<Option<Chunk>, u16> {
    let (selected, start, end) = match rest {
        Rest::File(selected, range) => (selected, range.start, range.end),
        Rest::Parts(selected, parts) => (selected, parts.first_offset(), selected.file().size),
        Rest::None | Rest::Memory(_) => return Ok(None),
    };
    let file = selected.file();
    let storage = &worker.tree().storage;
    let trouble = if file.file.is_remote() {
        match chunk::first_chunk(storage, file, &(start..end)).await {
            Ok(chunk) => return Ok(Some(chunk)),
            Err(trouble) => trouble,
        }
    } else {
        let end = (start + FIRST_BYTES).min(file.size);
        let reads = &file.file.file_system().reads;
        let warmed = warm(
            &file.file,
            &file.version,
            start..end,
            &worker.residency,
            reads,
        );
        match storage.within_limit(warmed).await {
            Ok(Ok(_)) => return Ok(None),
            Ok(Err(errno)) => Trouble::Failed(Errno::from_raw_os_error(errno.raw())),
            Err(TimedOut) => Trouble::TimedOut,
        }
    };
    report(worker, file, trouble);
    if trouble == Trouble::Changed {
        selected.distrust();
    }
    match trouble {
        // It can be asked for again at once.
        Trouble::Changed | Trouble::TimedOut => Err(503),
        Trouble::Failed(_) => Err(500),
    }
}

fn report(worker: &Worker, file: &Representation, trouble: Trouble) {
    let path = file.path();
    let reports = &worker.reports;
    match trouble {
        Trouble::Changed => reports.warn(|| format!("{path:?} changed while it was sent")),
        Trouble::Failed(errno) => reports.error(|| format!("cannot read {path:?}: {errno}")),
        Trouble::TimedOut => reports
            .error(|| format!("cannot read {path:?}: its file system did not answer in time")),
    }
}

/// An answer that says why there is none; nothing of another is sent yet. It ends the connection.
pub(crate) fn give_up(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    exchange: Exchange,
    status: u16,
) -> Answer {
    let framing = Framing {
        keep_alive: false,
        // What version the client speaks no longer matters when the connection ends here.
        version_minor: 1,
        ..exchange.framing
    };
    let exchange = Exchange {
        framing,
        request_body: None,
        record: exchange.record,
    };
    let message = h1::write(given_up(worker.site(), status), framing, &worker.clock);
    Answer::new(worker, connection, message, exchange)
}

/// Sends what is left of an answer; false if the connection has to end.
async fn deliver(
    worker: &Worker,
    connection: &Connection,
    account: &Account,
    terms: Terms,
    sending: SendState,
    first: Option<Chunk>,
) -> bool {
    let length = sending.aggregate().len();
    let _weight = (length >= LARGE_ANSWER_BYTES).then(|| connection.carry_large_answer());
    match account.selected().map(Selected::file) {
        Some(file) if file.file.is_remote() => {
            let sent = send_read(worker, connection, sending.into_rest(), file, first).await;
            sent.unwrap_or_else(|trouble| {
                report(worker, file, trouble);
                false
            })
        }
        file => {
            let mut flight = InFlight {
                worker,
                connection,
                account,
                file,
                terms,
                in_place: false,
                landed: false,
            };
            flight.send(sending).await && flight.land().await
        }
    }
}

/// An answer on its way to a client, and what its file is held by meanwhile.
struct InFlight<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
    account: &'a Account,
    file: Option<&'a Representation>,
    terms: Terms,
    /// Pages of the file were sent by reference.
    in_place: bool,
    landed: bool,
}

impl InFlight<'_> {
    /// Sends all that is left; false if the connection has to end.
    async fn send(&mut self, mut sending: SendState) -> bool {
        let Self {
            worker, connection, ..
        } = *self;
        loop {
            let reads = self.file.map(|file| &file.file.file_system().reads);
            let stability = self.terms.stability;
            let residency = &worker.residency;
            let lease = self.terms.lease.as_deref();
            let (outcome, rest) =
                run(connection, sending, stability, lease, residency, reads).await;
            let error = match outcome {
                Ok(summary) => {
                    self.note(&summary);
                    return true;
                }
                Err(error) => error,
            };
            self.note(&error.summary);
            if let Some(file) = self.file
                && matches!(error.cause, Cause::LeaseBroken)
                && (!self.in_place || self.last_chance().await)
            {
                sending = SendState::new(self.terms.without_lease(file, rest));
                self.in_place = false;
                continue;
            }
            self.account.explain(worker, connection, stability, &error);
            return false;
        }
    }

    fn note(&mut self, summary: &SendSummary) {
        self.in_place |= summary.files.iter().any(Summary::sent_in_place);
    }

    /// Lets go of the file. With a lease, not before what was sent in place is out of an editor's
    /// reach.
    async fn land(&mut self) -> bool {
        self.landed = match self.terms.lease.as_ref().filter(|_| self.in_place) {
            None => true,
            Some(lease) => tokio::select! {
                done = acknowledged(&self.connection.stream) => done.is_ok(),
                () = lease.broken() => self.last_chance().await,
            },
        };
        self.landed
    }

    /// Somebody wants to write and waits for us: the client gets a little time to acknowledge.
    async fn last_chance(&self) -> bool {
        let done = tokio::time::timeout(LEASE_GRACE, acknowledged(&self.connection.stream)).await;
        matches!(done, Ok(Ok(())))
    }
}

impl Drop for InFlight<'_> {
    /// An answer that did not end well takes its pages back before the lease goes: the socket's
    /// queue is dropped with a reset, by which the client also learns that bytes are missing.
    fn drop(&mut self) {
        if !self.landed {
            self.connection.stream.abort_queued();
        }
    }
}

/// Sends what is left, at the connection's pace; what came of it, and what is left then.
async fn run(
    connection: &Connection,
    mut state: SendState,
    stability: Stability,
    lease: Option<&Lease>,
    residency: &ResidencyCache,
    reads: Option<&Arc<ColdPool>>,
) -> (Result<SendSummary, SendError>, Aggregate) {
    let moved_before = state.moved();
    let left = state.aggregate().len() - moved_before;
    if let Some(pace) = &connection.pace {
        let wait = pace.wait(left, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            state.time_passed();
        }
    }
    let mut builder = state
        .to(&connection.stream)
        .sink_facts(connection.sink_facts(stability))
        .residency(residency)
        .progress(&connection.progress);
    if let Some(reads) = reads {
        builder = builder.cold_pool(reads);
    }
    if let Some(pace) = &connection.pace {
        builder = builder.throttle(pace.bytes_per_second());
    }
    let mut sending = match builder.start() {
        Ok(sending) => sending,
        Err(error) => return (Err(error), Aggregate::new()),
    };
    let outcome = match lease {
        // Whoever wants to write is heard also while memory between two ranges waits for the client.
        Some(lease) => match sending.run_until(lease.broken()).await {
            Ok(Some(summary)) => Ok(summary),
            Ok(None) => {
                sending.stop(Stop::LeaseBroken);
                sending.run().await
            }
            Err(error) => Err(error),
        },
        None => sending.run().await,
    };
    let state = sending.into_state();
    if let Some(pace) = &connection.pace {
        pace.take_last_of(state.moved() - moved_before, Instant::now());
    }
    (outcome, state.into_rest())
}

/// Sends an answer with ranges of a file that threads read, of which `first` was read already.
/// `Ok(false)` if the client is gone. That is a copy, where reaching the file system takes several.
/// The next chunk is read while one is sent, so that a connection holds two at most.
async fn send_read(
    worker: &Worker,
    connection: &Connection,
    all: Aggregate,
    file: &Representation,
    mut first: Option<Chunk>,
) -> Result<bool, Trouble> {
    let storage = &worker.tree().storage;
    // Sent with what comes behind it.
    let mut waiting = Aggregate::new();
    for segment in all {
        let Range { start, end } = match segment {
            Segment::Memory(bytes) => {
                waiting.push(bytes);
                continue;
            }
            Segment::File(range) => range.range(),
        };
        let mut at = start;
        let mut read = first
            .take()
            .filter(|chunk| chunk.at == at && !chunk.bytes.is_empty());
        while at < end {
            let mut chunk = match read.take() {
                Some(chunk) => chunk,
                None => chunk::first_chunk(storage, file, &(at..end)).await?,
            };
            // Of the answer's first bytes more may have been read than this part of it has.
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            chunk.bytes.truncate(most);
            at += chunk.bytes.len() as u64;
            let next = if at < end {
                Some(chunk::begin(file, &(at..end)).await)
            } else {
                None
            };
            waiting.push(chunk.bytes);
            if !send_memory(worker, connection, std::mem::take(&mut waiting)).await {
                return Ok(false);
            }
            if let Some(next) = next {
                let next = storage.within_limit(next.join()).await;
                read = Some(next.unwrap_or(Err(Trouble::TimedOut))?);
            }
        }
    }
    Ok(send_memory(worker, connection, waiting).await)
}

async fn send_memory(worker: &Worker, connection: &Connection, bytes: Aggregate) -> bool {
    let (stability, residency) = (Stability::MayChange, &worker.residency);
    let sending = SendState::new(bytes);
    let (outcome, _) = run(connection, sending, stability, None, residency, None).await;
    outcome.is_ok()
}
