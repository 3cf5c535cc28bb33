//! The lean path: part of a file that the caller has examined already, to a socket.
//!
//! No facts are gathered here: no fstat, fcntl or getsockopt beyond the version checks that the
//! chosen stability asks for. While the file is resident and was asked about within the last
//! second, a chunk costs one `sendfile(2)`, and with [`Stability::Immutable`] one `fstat(2)`.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::{Interest, Ready};

use zhaul_core::{
    Ask, DEFAULT_BUDGET_BYTES, DEFAULT_CHUNK_BYTES, HostFacts, InPlaceEnd, Length, Plan, Route,
    SinkFacts, SourceFacts, Stability, Summary, Transfer, TransferError, Version,
};

use super::ahead::{Ahead, MAX_READ_BYTES};
use super::drive::{Control, drive};
use super::readiness::Readiness;
use crate::cancel::CancelToken;
use crate::cold::ColdPool;
use crate::endpoint::host_facts;
use crate::hands::Hands;
use crate::lease::{Lease, covers};
use crate::progress::Progress;
use crate::residency::Memo;

/// A file that a job in the pool can keep alive: `Arc<File>`, `Arc<OwnedFd>`, or an `Arc` of
/// whatever a cache keeps that is `AsFd`.
pub trait SharedFile: AsFd + Clone + Send + 'static {}

impl<F: AsFd + Clone + Send + 'static> SharedFile for F {}

/// How to send; made once per worker or connection.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions<'a> {
    /// Who else may write to the file.
    pub stability: Stability,
    /// What the socket is.
    pub sink: SinkFacts,
    /// What the host is.
    pub host: HostFacts,
    /// Largest amount per system call, and the distance of version checks.
    pub chunk_bytes: usize,
    /// Bytes before other tasks get their turn.
    pub budget_bytes: usize,
    /// What was found resident lately; one per worker.
    pub residency: &'a Memo,
    /// Where cold pages are read.
    pub cold: &'a ColdPool,
    /// The lease that [`Stability::Leased`] speaks of, without which it is refused; the transfer stops
    /// when it breaks.
    pub lease: Option<&'a Lease>,
    /// Stops the transfer.
    pub cancel: Option<&'a CancelToken>,
    /// This route or none.
    pub only: Option<Route>,
    /// The version was read just now: the first chunk needs no check.
    pub version_is_fresh: bool,
    /// With [`Stability::MayChange`]: all bytes sent are of the version given, or the transfer
    /// ends before the first that is not. Costs one fstat for each read.
    pub one_version: bool,
}

impl<'a> SendOptions<'a> {
    /// An immutable file to a stream socket whose peer may be local.
    pub fn new(residency: &'a Memo, cold: &'a ColdPool) -> Self {
        Self {
            stability: Stability::Immutable,
            sink: SinkFacts::stream_socket(InPlaceEnd::Never),
            host: host_facts(),
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            budget_bytes: DEFAULT_BUDGET_BYTES,
            residency,
            cold,
            lease: None,
            cancel: None,
            only: None,
            version_is_fresh: false,
            one_version: false,
        }
    }

    fn ask(&self, range: &Range<u64>) -> Ask {
        Ask {
            offset: range.start,
            length: Length::Exact(range.end.saturating_sub(range.start)),
            stability: self.stability,
            // No more than is made resident at once.
            chunk_bytes: self.chunk_bytes.min(MAX_READ_BYTES),
            budget_bytes: self.budget_bytes,
            only: self.only,
            version_is_fresh: self.version_is_fresh,
            one_version: self.one_version,
            // The owner of the lease holds it until the socket is drained, while the connection
            // goes on.
            await_release: false,
            ..Ask::default()
        }
    }
}

/// Sends `range` of `file`, which is a regular file last seen in `version`.
///
/// A header may have been sent before with MSG_MORE, but not if the range is empty: nothing would
/// push it out. Dropping the future stops the transfer after a whole system call; `progress` says
/// how far it came. With [`Stability::Leased`] the future ends when all is queued: keep the lease
/// until [`acknowledged`](super::acknowledged) if [`Summary::sent_in_place`].
///
/// # Errors
/// Why it stopped early, and how many bytes were moved before.
pub async fn send_file<S: Readiness, F: SharedFile>(
    sink: &S,
    file: &F,
    version: Version,
    range: Range<u64>,
    options: &SendOptions<'_>,
    progress: &Progress,
) -> Result<Summary, TransferError> {
    let ask = options.ask(&range);
    let source = SourceFacts::regular(version);
    covers(options.lease, &source, options.stability).map_err(TransferError::refused)?;
    let plan = Plan::select(&source, &options.sink, &options.host, &ask);
    let transfer = Transfer::new(plan, &source, &options.sink, &options.host, &ask)?;
    let hands = Hands::new(&source, &options.sink, None);
    let ahead = Ahead::new(
        file,
        Some(version),
        options.residency,
        options.cold,
        options.chunk_bytes,
        Some(range.end),
    );
    let control = Control {
        lease: options.lease,
        cancel: options.cancel,
        progress: Some(progress),
        began: None,
        deadline: None,
    };
    drive(
        &AlwaysReady(file),
        sink,
        transfer,
        hands,
        Some(ahead),
        control,
    )
    .await
}

/// A file as a source: never makes anybody wait for readiness.
pub(crate) struct AlwaysReady<'a, F>(pub(crate) &'a F);

impl<F: AsFd> AsFd for AlwaysReady<'_, F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<F: AsFd> Readiness for AlwaysReady<'_, F> {
    fn try_io<R>(
        &self,
        _interest: Interest,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        call()
    }

    fn ready(&self, _interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send {
        std::future::ready(Ok(Ready::READABLE | Ready::WRITABLE))
    }

    fn is_file(&self) -> bool {
        true
    }
}
