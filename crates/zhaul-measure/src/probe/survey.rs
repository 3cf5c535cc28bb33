//! All probes in a row, each until its deadline.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::context::Context;
use super::deadline::{self, Given};
use super::mount::{self, Mount};
use super::place::{Place, Subject};
use super::report::{Cause, FileSystem, Finding, Report};
use super::seen::{Mechanism, Seen};
use super::trouble::{Trouble, described};
use super::{
    bpf, cachestat, copy_file_range, devices, ficlone, hugetlb, infiniband, io_uring, ktls, lease,
    limits, memfd, mmap, msg_zerocopy, o_direct, perf_event_open, read_write, rwf, sendfile,
    splice, tcp_zerocopy_receive, tee, userfaultfd, verdict, vmsplice,
};

type Probe = fn(&Context) -> Result<Seen, Trouble>;
type FileProbe = fn(&Subject) -> Result<Seen, Trouble>;

/// In the order of the report.
pub(super) const MECHANISMS: [(Mechanism, Probe); 21] = [
    (read_write::READ_WRITE, read_write::to_socket),
    (mmap::TO_SOCKET, mmap::to_socket),
    (sendfile::TO_SOCKET, sendfile::to_socket),
    (splice::TO_SOCKET, splice::to_socket),
    (vmsplice::VMSPLICE, vmsplice::to_socket),
    (msg_zerocopy::MSG_ZEROCOPY, msg_zerocopy::to_socket),
    (io_uring::SEND_ZC, io_uring::send_zc),
    (ktls::KTLS, ktls::to_socket),
    (infiniband::RDMA, infiniband::try_it),
    (splice::RELAY, splice::relay),
    (tee::TEE, tee::try_it),
    (
        tcp_zerocopy_receive::TCP_ZEROCOPY_RECEIVE,
        tcp_zerocopy_receive::from_socket,
    ),
    (io_uring::RECV_ZC, io_uring::recv_zc),
    (io_uring::READ, io_uring::read),
    (memfd::MEMFD, memfd::try_it),
    (userfaultfd::USERFAULTFD, userfaultfd::try_it),
    (hugetlb::HUGE_PAGES, hugetlb::try_it),
    (perf_event_open::TRACEPOINTS, perf_event_open::tracepoints),
    (perf_event_open::SAMPLES, perf_event_open::samples),
    (perf_event_open::BREAKPOINTS, perf_event_open::breakpoints),
    (bpf::BPF, bpf::try_it),
];

/// In the order of the report. Those that empty the page cache of the file come last.
pub(super) const OF_FILES: [(Mechanism, FileProbe); 10] = [
    (sendfile::OF_FILES, sendfile::of_files),
    (splice::OF_FILES, splice::of_files),
    (mmap::OF_FILES, mmap::of_files),
    (copy_file_range::COPY_FILE_RANGE, copy_file_range::try_it),
    (ficlone::REFLINK, ficlone::try_it),
    (lease::LEASE, lease::try_it),
    (cachestat::CACHESTAT, cachestat::try_it),
    (rwf::NOWAIT, rwf::nowait),
    (o_direct::O_DIRECT, o_direct::try_it),
    (rwf::DONTCACHE, rwf::dontcache),
];

/// How long one mechanism may take. Each of its waits is shorter.
pub(super) const ONE_PROBE: Duration = Duration::from_secs(8);
/// How long all of them together may take.
const ALL_PROBES: Duration = Duration::from_secs(24);
/// How long a file system may take for everything.
const ONE_FILE_SYSTEM: Duration = Duration::from_secs(12);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// A path does not lead to anything.
    #[error("{}: {}", .path.display(), described(*.errno))]
    Path {
        /// The path.
        path: PathBuf,
        /// What `open(2)` said.
        errno: Errno,
    },
    /// A file system does not answer.
    #[error("{}: no answer for {} s", .path.display(), ONE_PROBE.as_secs())]
    NoAnswer {
        /// The path.
        path: PathBuf,
    },
}

/// What a survey is to try, beside what the kernel can do whatever the file system.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Paths whose file systems are tried.
    pub paths: Vec<PathBuf>,
    /// An address of another machine with a service that reads and drops 16 KiB: MSG_ZEROCOPY is
    /// tried on the way there.
    pub peer: Option<SocketAddr>,
    /// Ids of mechanisms that end the process that tries them (see [`super::try_alone`]).
    pub deadly: Vec<String>,
}

/// Tries everything.
///
/// # Errors
/// If a path does not lead to a file or directory. Nothing else is an error: it is a finding.
pub fn survey(ask: &Ask) -> Result<Report, SurveyError> {
    let places = ask
        .paths
        .iter()
        .map(|path| open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let context = Arc::new(Context::look());
    let mut mechanisms = try_mechanisms(&context, &ask.deadly);
    if let Some(peer) = ask.peer {
        mechanisms.push(try_one(&TO_PEER, &context, move |_| {
            msg_zerocopy::to_peer(peer)
        }));
    }
    let mut report = Report {
        schema: Report::SCHEMA,
        kernel: context.kernel.clone(),
        verdict: Vec::new(),
        mechanisms,
        file_systems: places
            .into_iter()
            .map(|place| try_files(place, &context, &ask.deadly))
            .collect(),
        devices: deadline::within(ONE_PROBE, devices::look).unwrap_or_default(),
        limits: limits::look(&context),
    };
    report.verdict = verdict::of(&report);
    Ok(report)
}

const TO_PEER: Mechanism = Mechanism {
    id: "msg_zerocopy_to_peer",
    name: "MSG_ZEROCOPY to the peer",
    ..msg_zerocopy::MSG_ZEROCOPY
};

fn open(path: &Path) -> Result<Place, SurveyError> {
    let owned = path.to_owned();
    match deadline::within(ONE_PROBE, move || Place::open(&owned)) {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(errno)) => Err(SurveyError::Path {
            path: path.to_owned(),
            errno,
        }),
        Err(_) => Err(SurveyError::NoAnswer {
            path: path.to_owned(),
        }),
    }
}

fn try_mechanisms(context: &Arc<Context>, deadly: &[String]) -> Vec<Finding> {
    let deadline = Instant::now() + ALL_PROBES;
    MECHANISMS
        .iter()
        .map(|(mechanism, probe)| {
            if is_among(mechanism, deadly) {
                return kills().of(mechanism);
            }
            if Instant::now() >= deadline {
                return out_of_time(mechanism);
            }
            try_one(mechanism, context, *probe)
        })
        .collect()
}

fn is_among(mechanism: &Mechanism, deadly: &[String]) -> bool {
    deadly.iter().any(|id| id == mechanism.id)
}

fn kills() -> Seen {
    Seen::missing(
        Cause::NotPermitted,
        "a seccomp filter kills whoever tries it",
        "a process of its own tried it and ended by SIGSYS",
    )
    .remedy("allow its system calls in the filter (SystemCallFilter= of the service)")
}

fn out_of_time(mechanism: &Mechanism) -> Finding {
    Seen::unknown("not tried: the others took too long", "nothing was tried").of(mechanism)
}

fn try_one(
    mechanism: &Mechanism,
    context: &Arc<Context>,
    probe: impl FnOnce(&Context) -> Result<Seen, Trouble> + Send + 'static,
) -> Finding {
    let theirs = Arc::clone(context);
    let named = *mechanism;
    let seen = deadline::within(ONE_PROBE, move || {
        probe(&theirs).unwrap_or_else(|trouble| trouble.judge(&named, &theirs))
    });
    seen.unwrap_or_else(given_up).of(mechanism)
}

fn given_up(given: Given) -> Seen {
    match given {
        Given::Up => Seen::unknown(
            format!("no answer for {} s", ONE_PROBE.as_secs()),
            "the probe was left behind",
        ),
        Given::Out => Seen::unknown(
            "the probe failed",
            "it panicked, or no thread could be started; please report it",
        ),
    }
}

/// What a file system told about itself before the probes.
struct Described {
    mount: Mount,
    not_writable: Option<String>,
    read_from: Option<String>,
}

/// One thread for all that touches the file system: when it hangs, what it has found out is kept.
fn try_files(place: Place, context: &Arc<Context>, deadly: &[String]) -> FileSystem {
    let path = place.path.display().to_string();
    let directory = place.directory.display().to_string();
    let (described, description) = channel();
    let (found, findings) = channel();
    let theirs = Arc::clone(context);
    let deadly = deadly.to_vec();
    let running = deadline::start(move || {
        let mount = mount::mount_of(place.dir());
        let subject = place.subject();
        let _ = described.send(Described {
            mount,
            not_writable: subject.not_writable.clone(),
            read_from: subject.read_from.clone(),
        });
        probe_files(&subject, &theirs, &deadly, &found);
    });
    let deadline = Instant::now() + ONE_FILE_SYSTEM;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut file_system = FileSystem {
        path,
        directory,
        kind: "unknown".into(),
        mount_point: None,
        not_writable: None,
        read_from: None,
        findings: Vec::new(),
    };
    if let Ok(description) = description.recv_timeout(left()) {
        file_system.kind = description.mount.kind;
        file_system.mount_point = description.mount.point;
        file_system.not_writable = description.not_writable;
        file_system.read_from = description.read_from;
    }
    let given = loop {
        match findings.recv_timeout(left()) {
            Ok(finding) => file_system.findings.push(finding),
            Err(RecvTimeoutError::Timeout) => break Given::Up,
            Err(RecvTimeoutError::Disconnected) => break Given::Out,
        }
    };
    drop(running);
    for (mechanism, _) in OF_FILES.iter().skip(file_system.findings.len()) {
        file_system.findings.push(given_up(given).of(mechanism));
    }
    file_system
}

fn probe_files(subject: &Subject, context: &Context, deadly: &[String], found: &Sender<Finding>) {
    for (mechanism, probe) in OF_FILES {
        let seen = if is_among(&mechanism, deadly) {
            kills()
        } else {
            match catch_unwind(AssertUnwindSafe(|| probe(subject))) {
                Ok(seen) => seen.unwrap_or_else(|trouble| trouble.judge(&mechanism, context)),
                Err(_) => given_up(Given::Out),
            }
        };
        // Nobody listens any more when the time was over.
        if found.send(seen.of(&mechanism)).is_err() {
            return;
        }
    }
}
