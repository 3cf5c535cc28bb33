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

use crate::answer::{Answer, Body};
use crate::config;
use crate::connection::{Connection, Phase};
use crate::entry::Representation;
use crate::error_page;
use crate::head;
use crate::multipart::Piece;
use crate::record::{Outcome, Record};
use crate::remote::{self, Chunk, Trouble};
use crate::storage::TimedOut;
use crate::worker::Worker;

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
        self.worker.log_line(self.connection, record, self.outcome);
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

impl Worker {
    /// Sends `answer`, or what has to take its place; false if the connection is of no use
    /// afterwards.
    pub(crate) async fn send(&self, connection: &Connection, answer: &mut Answer) -> bool {
        connection.enter(Phase::Working);
        let first = match self.prepare(answer).await {
            Ok(first) => first,
            Err(status) => {
                self.fail(answer, status);
                None
            }
        };
        let mut ending = Ending {
            worker: self,
            connection,
            record: answer.record.take(),
            outcome: Outcome {
                complete: false,
                ..Outcome::from_memory(answer.status, 0, answer.encoding)
            },
            body_from: connection.sent() - answer.head_sent as u64 + answer.body_at as u64,
            of_file: false,
        };
        if let Some(file) = answer.body.file() {
            // What threads read for us is not a transfer's to count.
            ending.of_file = !file.file.is_remote();
            ending.outcome.route = Route::ReadWrite.name();
        }
        connection.enter(Phase::Sending);
        let body = std::mem::replace(&mut answer.body, Body::None);
        let more = !body.is_none();
        let head = &answer.head[answer.head_sent..];
        let sent = connection
            .stream
            .send_all(head, more, |n| connection.add_sent(n))
            .await;
        // Without another round since, the file was looked at just now.
        let fresh = answer.batch == self.batch();
        if sent.is_err() || !self.send_body(connection, body, fresh, first).await {
            connection.stream.abort_queued();
            return false;
        }
        ending.outcome.complete = true;
        connection.served.set(connection.served.get() + 1);
        true
    }

    /// Makes sure that the first bytes of a file can be read, while an error can still be told; gives
    /// them if they had to be read into memory.
    async fn prepare(&self, answer: &Answer) -> Result<Option<Chunk>, u16> {
        let Some(file) = answer.body.file() else {
            return Ok(None);
        };
        let (start, end) = match &answer.body {
            Body::File { range, .. } => (range.start, range.end),
            Body::Parts { parts, .. } => (parts.first_offset(), file.size),
            Body::None | Body::Shared { .. } => return Ok(None),
        };
        let storage = &self.site.storage;
        let trouble = if file.file.is_remote() {
            match remote::first_chunk(storage, file, &(start..end)).await {
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
                &self.residency,
                reads,
            );
            match storage.within_limit(warmed).await {
                Ok(Ok(_)) => return Ok(None),
                Ok(Err(errno)) => Trouble::Failed(Errno::from_raw_os_error(errno.raw())),
                Err(TimedOut) => Trouble::TimedOut,
            }
        };
        self.report(file, trouble);
        if trouble == Trouble::Changed {
            answer.body.distrust();
        }
        match trouble {
            // It can be asked for again at once.
            Trouble::Changed | Trouble::TimedOut => Err(503),
            Trouble::Failed(_) => Err(500),
        }
    }

    fn report(&self, file: &Representation, trouble: Trouble) {
        let path = file.path();
        match trouble {
            Trouble::Changed => self.warn(|| format!("{path:?} changed while it was sent")),
            Trouble::Failed(errno) => {
                self.error_report(|| format!("cannot read {path:?}: {errno}"));
            }
            Trouble::TimedOut => self.error_report(|| {
                format!("cannot read {path:?}: its file system did not answer in time")
            }),
        }
    }

    /// Makes `answer` one that says why it cannot be given; nothing of it is sent yet. It ends the
    /// connection.
    pub(crate) fn fail(&self, answer: &mut Answer, status: u16) {
        let mut head = Vec::with_capacity(512);
        self.begin(&mut head, status);
        head.extend_from_slice(self.site.fields_of_all());
        let body = error_page::plain(status);
        head::field(&mut head, "Content-Type", b"text/plain; charset=utf-8");
        head::content_length(&mut head, body.len() as u64);
        // What version the client speaks no longer matters when the connection ends here.
        head::end(&mut head, false, 1);
        answer.body_at = head.len();
        if !answer.head_only {
            head.extend_from_slice(&body);
        }
        answer.head = head;
        answer.head_sent = 0;
        answer.status = status;
        answer.body = Body::None;
        answer.encoding = None;
        answer.keep_alive = false;
        answer.request_body = None;
    }

    async fn send_body(
        &self,
        connection: &Connection,
        body: Body,
        fresh: bool,
        first: Option<Chunk>,
    ) -> bool {
        let count = |n| connection.add_sent(n);
        match body {
            Body::None => true,
            Body::Shared { bytes, range } => connection
                .stream
                .send_all(&bytes[range], false, count)
                .await
                .is_ok(),
            Body::File {
                slot,
                coding,
                range,
            } => {
                let Some(file) = slot.value.get(coding) else {
                    return false;
                };
                let large = range.len() >= LARGE_ANSWER_BYTES;
                let _weight = large.then(|| connection.carry_large_answer());
                let mut flight = self.take_off(connection, file, fresh, first);
                flight.send(range.start..range.end).await && flight.land().await
            }
            Body::Parts {
                slot,
                coding,
                parts,
            } => {
                let Some(file) = slot.value.get(coding) else {
                    return false;
                };
                let _weight = connection.carry_large_answer();
                let mut flight = self.take_off(connection, file, fresh, first);
                for piece in parts {
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
        &'a self,
        connection: &'a Connection,
        file: &'a Representation,
        fresh: bool,
        first: Option<Chunk>,
    ) -> InFlight<'a> {
        let (lease, stability) = match self.site.config.stability {
            // It is copied, whatever is asked for.
            _ if file.file.is_remote() => (None, Stability::MayChange),
            config::Stability::Immutable => (None, Stability::Immutable),
            config::Stability::Copy => (None, Stability::MayChange),
            config::Stability::Lease => match Lease::acquire(&file.file) {
                Ok(lease) => (Some(lease), Stability::Leased),
                Err(why) => {
                    let path = file.path();
                    self.warn(|| format!("no lease on {path:?}, so it is copied: {why}"));
                    (None, Stability::MayChange)
                }
            },
        };
        InFlight {
            worker: self,
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
            let sent = remote::send(&worker.site.storage, connection, file, range, first).await;
            return sent.unwrap_or_else(|trouble| {
                worker.report(file, trouble);
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
            Cause::SourceEnded => self.worker.error_report(|| {
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
                self.worker.warn(|| format!("{path:?} changed while it was sent to {peer}; the connection is closed short of its length: {error}{remedy}"));
            }
            Cause::LeaseBroken => self.worker.warn(|| {
                format!(
                    "{path:?} is about to be written to, and {peer} did not take in time what it was sent; the answer is cut short: {error}"
                )
            }),
            _ => self
                .worker
                .error_report(|| format!("cannot send {path:?} to {peer}: {error}")),
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
