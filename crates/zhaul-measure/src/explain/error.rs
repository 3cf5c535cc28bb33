//! What can be wrong with the ends and with what is asked, each with what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno as Raw;
use zhaul::{Cause, LeaseError, Operation, Refusal, Rejection, Route};

use super::units::amount_exactly;

/// Why there is no explanation, or no run. Prints as `what: why (what to do)`.
#[derive(Debug)]
pub struct Error {
    what: String,
    problem: Problem,
}

/// What is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A system call failed.
    Io(io::Error),
    /// A path leads to a directory.
    Directory,
    /// A path leads to a UNIX socket, which is connected to, not opened.
    SocketIsNoFile,
    /// `unix:` leads to something that is no socket.
    NotASocket,
    /// A standard stream is open the other way round, or not at all.
    NotOpen,
    /// A source that keeps message boundaries.
    KeepsMessages,
    /// A host name stands for no address.
    UnknownName(io::Error),
    /// A file is there and was not to be overwritten.
    Exists,
    /// A block device would be overwritten.
    Device,
    /// Source and sink are one file.
    SameFile,
    /// Nobody opened the other side of a FIFO, or answered, in time.
    NobodyThere {
        /// What was waited for.
        whom: &'static str,
        /// How long.
        waited: Duration,
    },
    /// An offset in a stream.
    NoPositions,
    /// An offset or a length that reaches past the end.
    PastEnd {
        /// Where the source ends.
        size: u64,
    },
    /// The lease that was asked for cannot be had.
    NoLease(LeaseError),
    /// The route that was asked for cannot be taken.
    RouteRefused {
        /// Which.
        route: Route,
        /// Why not.
        rejection: Rejection,
    },
    /// The peer reset the connection when all was sent, and may not have all of it.
    Reset,
    /// The transfer ended early.
    Stopped {
        /// Why.
        cause: Cause,
        /// Bytes that the sink had taken.
        moved: u64,
        /// Bytes lost between the two.
        stranded: u64,
    },
}

impl Error {
    /// `what` is the name of an end, or of both.
    pub(crate) fn new(what: impl Into<String>, problem: Problem) -> Self {
        Self {
            what: what.into(),
            problem,
        }
    }

    pub(crate) fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::new(what, Problem::Io(error.into()))
    }

    /// What is wrong.
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, problem } = self;
        write!(f, "{what}: {problem} ({})", problem.remedy())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Their text is part of ours; a chain would print it twice.
        None
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => f.write_str(&plain(error)),
            Self::Directory => f.write_str("is a directory"),
            Self::SocketIsNoFile => {
                f.write_str("is a socket, which is not opened but connected to")
            }
            Self::NotASocket => f.write_str("is no socket"),
            Self::NotOpen => f.write_str("is not open that way"),
            Self::KeepsMessages => {
                f.write_str("keeps message boundaries, and a transfer is a stream of bytes")
            }
            Self::UnknownName(error) => write!(f, "no address: {}", plain(error)),
            Self::Exists => f.write_str("is there already"),
            Self::Device => f.write_str("is a block device, and what is on it would be lost"),
            Self::SameFile => f.write_str("are one and the same file"),
            Self::NobodyThere { whom, waited } => {
                write!(f, "{whom} for {} s", waited.as_secs_f64())
            }
            Self::NoPositions => f.write_str("has no positions to start from"),
            Self::PastEnd { size } => write!(f, "ends at {}", amount_exactly(*size)),
            Self::NoLease(error) => write!(f, "no lease: {error}"),
            Self::RouteRefused { route, rejection } => {
                write!(f, "{route} is no route: {rejection}")
            }
            Self::Reset => f.write_str("reset by the peer before it acknowledged the last bytes"),
            Self::Stopped {
                cause,
                moved,
                stranded,
            } => {
                write!(f, "{cause}, after {}", amount_exactly(*moved))?;
                if *stranded > 0 {
                    write!(
                        f,
                        ", and {} were lost on the way",
                        amount_exactly(*stranded)
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl Problem {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io(error) => remedy_of_errno(error),
            Self::Directory => "name a file in it",
            Self::SocketIsNoFile => "write unix: before the path",
            Self::NotASocket => "leave unix: out to open it as a file",
            Self::NotOpen => "redirect it: < file for a source, > file for a sink",
            Self::KeepsMessages => "use a stream socket or a pipe",
            Self::UnknownName(_) => "check the name, or write the address itself",
            Self::Exists => "say --overwrite to replace its content, or name another file",
            Self::Device => "say --overwrite if that is what you want",
            Self::SameFile => "name another sink",
            Self::NobodyThere { .. } => "start the other side, or give it longer with --wait",
            Self::NoPositions => "leave --offset out; bytes of a stream can only be read in order",
            Self::PastEnd { .. } => "ask for less with --offset and --length",
            Self::NoLease(error) => remedy_of_lease(*error),
            Self::RouteRefused { rejection, .. } => remedy_of_rejection(*rejection),
            Self::Reset => "whoever reads there is gone: find out why",
            Self::Stopped { cause, .. } => remedy_of_cause(cause),
        }
    }
}

/// The text of an error without the number that `io::Error` puts behind it.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn remedy_of_errno(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Raw::from_raw_os_error) {
        Some(Raw::NOENT) => "check the path; a sink is created, the directory it is in is not",
        Some(Raw::NOTDIR) => "a part of the path is a file: check it",
        Some(Raw::ACCESS | Raw::PERM) => "ask for the right to it, or run as its owner",
        Some(Raw::CONNREFUSED) => "start whoever should listen there",
        Some(Raw::NETUNREACH | Raw::HOSTUNREACH | Raw::NETDOWN) => {
            "bring the network up, or use an address that can be reached"
        }
        Some(Raw::PROTOTYPE) => "the socket there is not a stream socket; use one that is",
        Some(Raw::ROFS) => "name a file on a file system that can be written",
        Some(Raw::TXTBSY) => "a program that runs cannot be written; stop it or name another file",
        Some(Raw::BUSY) => "it is in use: unmount it first",
        Some(Raw::AGAIN) => "somebody holds a lease on it: try again in a moment",
        Some(Raw::MFILE | Raw::NFILE) => "raise the limit on open files",
        Some(Raw::NXIO | Raw::NODEV) => "nothing answers behind that device; check the name",
        Some(Raw::LOOP) => "the links lead in a circle: check the path",
        Some(Raw::NAMETOOLONG) => "use a shorter path",
        Some(Raw::ADDRNOTAVAIL | Raw::AFNOSUPPORT) => {
            "use an address of a family that this machine has"
        }
        Some(Raw::NOSPC | Raw::DQUOT) => "make room there, or use another sink",
        Some(Raw::FBIG) => "raise the limit on file sizes (ulimit -f), or use another file system",
        _ => "check that it is there and works",
    }
}

const fn remedy_of_lease(error: LeaseError) -> &'static str {
    match error {
        LeaseError::HasWriter => {
            "wait until the writer closed it, or say --stability may-change to copy"
        }
        LeaseError::NotOwner => "run as the owner, or say --stability may-change to copy",
        _ => "say --stability may-change to copy, or immutable if nobody edits it in place",
    }
}

const fn remedy_of_rejection(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::SourceMayChange => {
            "say --stability immutable if nobody edits it in place, or leased"
        }
        Rejection::SourceMayShrink => "say --stability leased, which rules a cut out",
        Rejection::FlightEndUnknown => "say --stability immutable if nobody edits it in place",
        Rejection::SinkAppends => "open the sink without O_APPEND: > instead of >>",
        Rejection::BelowThreshold => "ask for more bytes, or leave --route out",
        _ => "leave --route out to see what can be done",
    }
}

fn remedy_of_cause(cause: &Cause) -> &'static str {
    match cause {
        Cause::Io {
            operation: Operation::Read | Operation::SpliceIn,
            ..
        } => "check the source",
        Cause::Io { errno, .. } => match Raw::from_raw_os_error(errno.raw()) {
            Raw::PIPE | Raw::CONNRESET => "whoever reads there is gone: find out why",
            errno => remedy_of_errno(&errno.into()),
        },
        Cause::Truncated { .. } | Cause::Changed | Cause::LeaseBroken => {
            "somebody wrote to the source: run it again, or say --stability may-change"
        }
        Cause::SourceEnded => "ask for less with --length",
        Cause::SinkStalled => "check the sink",
        Cause::SinkTruncated { .. } => "find out who else writes to the sink",
        Cause::Cancelled => "run it again for the whole of it",
        Cause::RouteRefused { rejection, .. } => remedy_of_rejection(*rejection),
        Cause::Refused {
            refusal: Refusal::SourceKeepsMessages,
        } => "use a stream socket or a pipe",
        Cause::SameFile => "name another sink",
        _ => "run it again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_why_and_what_to_do() {
        let missing = Error::io("a.bin", Raw::NOENT);
        assert_eq!(
            missing.to_string(),
            "a.bin: No such file or directory (check the path; a sink is created, the directory it is in is not)"
        );
        let stopped = Error::new(
            "a to b",
            Problem::Stopped {
                cause: Cause::Io {
                    operation: Operation::Write,
                    errno: zhaul::Errno::ENOSPC,
                },
                moved: 4096,
                stranded: 7,
            },
        );
        assert_eq!(
            stopped.to_string(),
            "a to b: write to the sink: no space left on device (ENOSPC), after 4,096 bytes, and 7 bytes were \
             lost on the way (make room there, or use another sink)"
        );
    }
}
