//! Sending an answer that has to wait for somebody: the client, a disk, or an editor.
//!
//! File bytes go through [`zhaul::transfer()`], which picks the route. What is decided here
//! is what a failure means to the client: once a head with a Content-Length is out, the only
//! honest sign that the rest will not come is a connection that ends before it.

use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use zhaul::async_io::{SharedFile, acknowledged, warm};
use zhaul::lease::Lease;
use zhaul::{Cause, Route, SourceFacts, Stability, Summary, TransferError};

use crate::answer::failure::given_up;
use crate::files::chunk::{self, Chunk, Trouble};
use crate::files::entry::Representation;
use crate::files::storage::{Storage, TimedOut};
use crate::host::config;
use crate::log::record::{Outcome, Record};
use crate::message::multipart::Piece;
use crate::run::connection::{Connection, Phase};
use crate::run::outgoing::{Exchange, Outgoing};
use crate::run::worker::Worker;
use crate::wire::h1::{self, Framing, Rest};

/// An answer from here up counts as a long one when connections are spread over workers.
const LARGE_ANSWER_BYTES: u64 = 1024 * 1024;
/// What must be readable before a head that promises a file goes out.
const FIRST_BYTES: u64 = 64 * 1024;
/// How long a broken lease may wait for a client to acknowledge what is in flight. The kernel
/// takes the lease away after `fs.lease-break-time`, 45 s by default.
const LEASE_GRACE: Duration = Duration::from_secs(10);

/// Writes the log line of an answer when it ends, in whatever way.
struct Ending<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
    record: Option<Record>,
    outcome: Outcome,
    /// What the connection will have sent when the body of this answer begins.
    body_from: u64,
    of_file: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Some(record) = &self.record else { return };
        self.outcome.bytes = self.connection.sent().saturating_sub(self.body_from);
        if let Some(route) = self.connection.transferred.route().filter(|_| self.of_file) {
            self.outcome.route = route.name();
        }
        let remote = self.connection.remote();
        self.worker.lines.write(record, remote, &self.outcome);
    }
}

/// A file on its way to a client, and what it is held by meanwhile.
struct InFlight<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
    file: &'a Representation,
    lease: Option<Lease>,
    stability: Stability,
    /// What of it was read already.
    first: Option<Chunk>,
    /// The file was found unchanged a moment ago.
    fresh: bool,
    in_place: bool,
    landed: bool,
}

/// Sends `answer`, or what has to take its place; false if the connection is of no use
/// afterwards.
pub(crate) async fn send(worker: &Worker, connection: &Connection, answer: &mut Outgoing) -> bool {
    connection.enter(Phase::Working);
    let first = match prepare(worker, &answer.message.rest).await {
        Ok(first) => first,
        Err(status) => {
            let exchange = answer.exchange.take();
            *answer = give_up(worker, exchange, status);
            None
        }
    };
    let message = &mut answer.message;
    let mut ending = Ending {
        worker,
        connection,
        record: answer.exchange.record.take(),
        outcome: Outcome {
            complete: false,
            ..Outcome::from_memory(message.status, 0, message.encoding)
        },
        body_from: connection.sent() - answer.sent as u64 + message.body_at as u64,
        of_file: false,
    };
    if let Some(selected) = message.rest.selected() {
        // What threads read for us is not a transfer's to count.
        ending.of_file = !selected.file().file.is_remote();
        ending.outcome.route = Route::ReadWrite.name();
    }
    connection.enter(Phase::Sending);
    let rest = std::mem::replace(&mut message.rest, Rest::None);
    let more = !rest.is_none();
    let bytes = &message.bytes[answer.sent..];
    let count = |n| connection.add_sent(n);
    let sent = connection.stream.send_all(bytes, more, count).await;
    // Without another round since, the file was looked at just now.
    let fresh = answer.batch == worker.reactor.batch();
    if sent.is_err() || !send_rest(worker, connection, rest, fresh, first).await {
        connection.stream.abort_queued();
        return false;
    }
    ending.outcome.complete = true;
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
        Rest::None | Rest::Memory(..) => return Ok(None),
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
pub(crate) fn give_up(worker: &Worker, exchange: Exchange, status: u16) -> Outgoing {
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
    Outgoing::new(message, exchange, worker.reactor.batch())
}

async fn send_rest(
    worker: &Worker,
    connection: &Connection,
    rest: Rest,
    fresh: bool,
    first: Option<Chunk>,
) -> bool {
    let count = |n| connection.add_sent(n);
    match rest {
        Rest::None => true,
        Rest::Memory(bytes, range) => connection
            .stream
            .send_all(&bytes[range], false, count)
            .await
            .is_ok(),
        Rest::File(selected, range) => {
            let large = range.len() >= LARGE_ANSWER_BYTES;
            let _weight = large.then(|| connection.carry_large_answer());
            let mut flight = take_off(worker, connection, selected.file(), fresh, first);
            flight.send(range.start..range.end).await && flight.land().await
        }
        Rest::Parts(selected, parts) => {
            let _weight = connection.carry_large_answer();
            let mut flight = take_off(worker, connection, selected.file(), fresh, first);
            for piece in *parts {
                let sent = match piece {
                    Piece::File(range) => flight.send(range.start..range.end).await,
                    Piece::Bytes(bytes) => {
                        // Each part's header is followed by its part; the last delimiter is
                        // followed by nothing.
                        let more = !bytes.ends_with(b"--\r\n");
                        connection
                            .stream
                            .send_all(&bytes, more, count)
                            .await
                            .is_ok()
                    }
                };
                if !sent {
                    return false;
                }
            }
            flight.land().await
        }
    }
}

fn take_off<'a>(
    worker: &'a Worker,
    connection: &'a Connection,
    file: &'a Representation,
    fresh: bool,
    first: Option<Chunk>,
) -> InFlight<'a> {
    let (lease, stability) = match worker.site().config.stability {
        // It is copied, whatever is asked for.
        _ if file.file.is_remote() => (None, Stability::MayChange),
        config::Stability::Immutable => (None, Stability::Immutable),
        config::Stability::Copy => (None, Stability::MayChange),
        config::Stability::Lease => match Lease::acquire(&file.file) {
            Ok(lease) => (Some(lease), Stability::Leased),
            Err(why) => {
                let path = file.path();
                worker
                    .reports
                    .warn(|| format!("no lease on {path:?}, so it is copied: {why}"));
                (None, Stability::MayChange)
            }
        },
    };
    InFlight {
        worker,
        connection,
        file,
        // Until a lease is held, the file may change; only then does looking at it help.
        fresh: fresh && lease.is_none(),
        lease,
        stability,
        first,
        in_place: false,
        landed: false,
    }
}

impl InFlight<'_> {
    /// Sends a range of the file; false if the connection has to end.
    async fn send(&mut self, mut range: Range<u64>) -> bool {
        let Self {
            worker,
            connection,
            file,
            ..
        } = *self;
        if file.file.is_remote() {
            let first = self.first.take();
            let sent = send_chunks(&worker.tree().storage, connection, file, range, first).await;
            return sent.unwrap_or_else(|trouble| {
                report(worker, file, trouble);
                false
            });
        }
        loop {
            let error = match self.transfer(range.clone()).await {
                Ok(summary) => {
                    self.in_place |= summary.sent_in_place();
                    return true;
                }
                Err(error) => error,
            };
            self.in_place |= error.summary.sent_in_place();
            let is_lease = matches!(error.cause, Cause::LeaseBroken);
            if !is_lease || (self.in_place && !self.last_chance().await) {
                self.explain(&error);
                return false;
            }
            // Whoever wants to write gets in. The rest is copied, and the file compared each time
            // before it is sent: one that only grows is sent to its end.
            self.lease = None;
            self.in_place = false;
            self.stability = Stability::MayChange;
            range.start += error.summary.moved;
        }
    }

    async fn transfer(&mut self, range: Range<u64>) -> Result<Summary, TransferError> {
        let Self {
            worker,
            connection,
            file,
            ..
        } = *self;
        let mut haul = zhaul::transfer(SharedFile(file.file.clone()), &connection.stream)
            .range(range)
            .source_facts(SourceFacts::regular(file.version))
            .version_is_fresh(std::mem::take(&mut self.fresh))
            .sink_facts(connection.sink_facts(self.stability))
            .stability(self.stability)
            // An answer has one entity tag.
            .one_version(true)
            // The lease is held until the socket is drained, while the connection goes on.
            .await_release(false)
            .residency(&worker.residency)
            .cold_pool(&file.file.file_system().reads)
            .progress(&connection.transferred);
        if let Some(lease) = &self.lease {
            haul = haul.lease(lease);
        }
        let pace = connection.stream.pace();
        if let Some(pace) = pace {
            haul = haul.throttle(pace.bytes_per_second());
        }
        let before = connection.transferred.moved();
        let moved = haul.run_async().await;
        if let Some(pace) = pace {
            let bytes = connection.transferred.moved() - before;
            pace.take_last_of(bytes, Instant::now());
        }
        moved
    }

    /// Lets go of the file. With a lease, not before what was sent in place is out of an editor's
    /// reach.
    async fn land(&mut self) -> bool {
        self.landed = match self.lease.as_ref().filter(|_| self.in_place) {
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

    fn explain(&self, error: &TransferError) {
        let path = self.file.path();
        let peer = self.connection.peer;
        match error.cause {
            _ if error.is_disconnect() => tracing::debug!("{peer} left: {path:?}: {error}"),
            Cause::SourceEnded => self.worker.reports.error(|| {
                format!(
                    "{path:?} ends before the size that its file system states; the connection to {peer} is closed there: {error}"
                )
            }),
            Cause::Truncated { .. } | Cause::Changed => {
                let remedy = match self.stability {
                    Stability::Immutable => {
                        " (replace files by rename, or use --stability lease or copy)"
                    }
                    _ => "",
                };
                self.worker.reports.warn(|| format!("{path:?} changed while it was sent to {peer}; the connection is closed short of its length: {error}{remedy}"));
            }
            Cause::LeaseBroken => self.worker.reports.warn(|| {
                format!(
                    "{path:?} is about to be written to, and {peer} did not take in time what it was sent; the answer is cut short: {error}"
                )
            }),
            _ => self
                .worker
                .reports.error(|| format!("cannot send {path:?} to {peer}: {error}")),
        }
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

/// Sends a range of a file that threads read, of which `first` may have been read already. `Ok(false)` if the client is
/// gone.
async fn send_chunks(
    storage: &Storage,
    connection: &Connection,
    file: &Representation,
    range: Range<u64>,
    first: Option<Chunk>,
) -> Result<bool, Trouble> {
    let mut at = range.start;
    let mut read = first.filter(|chunk| chunk.at == at && !chunk.bytes.is_empty());
    while at < range.end {
        let mut chunk = match read.take() {
            Some(chunk) => chunk,
            None => chunk::first_chunk(storage, file, &(at..range.end)).await?,
        };
        // Of the answer's first bytes more may have been read than this part of it has.
        let most = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        chunk.bytes.truncate(most);
        at += chunk.bytes.len() as u64;
        let next = if at < range.end {
            Some(chunk::begin(file, &(at..range.end)).await)
        } else {
            None
        };
        let count = |n| connection.add_sent(n);
        let sent = connection
            .stream
            .send_all(&chunk.bytes, next.is_some(), count);
        if sent.await.is_err() {
            return Ok(false);
        }
        if let Some(next) = next {
            let next = storage.within_limit(next.join()).await;
            read = Some(next.unwrap_or(Err(Trouble::TimedOut))?);
        }
    }
    Ok(true)
}
