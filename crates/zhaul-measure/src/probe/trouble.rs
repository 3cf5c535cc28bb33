//! Why a try failed, and what that says about the mechanism.
//!
//! An errno alone is ambiguous. "The kernel lacks it", "not permitted" and "could not be tried" are
//! told apart by it together with the kernel's version and a seccomp filter; what only a probe can
//! know, it says itself.

use std::io;

use rustix::io::Errno;

use super::context::Context;
use super::limits::remedy_of_locked_memory;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A call of the mechanism failed.
    Call(&'static str, Errno),
    /// Something that the try needs, but is not the mechanism, failed.
    Needs(&'static str, Errno),
    /// Other bytes arrived than were sent.
    Differs(&'static str),
    /// Nothing moved any more.
    Stuck(&'static str),
    /// The probe knows better.
    Known(Box<Seen>),
}

/// Names the call that failed.
pub(super) trait During<T> {
    /// A call of the mechanism itself.
    fn during(self, call: &'static str) -> Result<T, Trouble>;
    /// A call that only prepares the try.
    fn preparing(self, call: &'static str) -> Result<T, Trouble>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, call: &'static str) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::Call(call, errno_of(&error)))
    }

    fn preparing(self, call: &'static str) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::Needs(call, errno_of(&error)))
    }
}

impl<T> During<T> for rustix::io::Result<T> {
    fn during(self, call: &'static str) -> Result<T, Trouble> {
        self.map_err(|errno| Trouble::Call(call, errno))
    }

    fn preparing(self, call: &'static str) -> Result<T, Trouble> {
        self.map_err(|errno| Trouble::Needs(call, errno))
    }
}

/// EIO stands for errors that did not come from the kernel.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl From<Seen> for Trouble {
    fn from(seen: Seen) -> Self {
        Self::Known(Box::new(seen))
    }
}

impl Trouble {
    /// What it says about the mechanism.
    pub(super) fn judge(self, mechanism: &Mechanism, context: &Context) -> Seen {
        match self {
            Self::Known(seen) => *seen,
            Self::Needs(call, errno) => could_not_try(call, errno, context),
            Self::Stuck(what) => Seen::unknown(
                format!("{what}: nothing moved in time"),
                "given up after a time limit",
            ),
            Self::Differs(what) => Seen::missing(
                Cause::Misbehaves,
                format!("{what}: other bytes arrived than were sent"),
                "the received bytes were compared",
            )
            .remedy("do not use it on this kernel; report it to whoever maintains the kernel"),
            Self::Call(call, errno) => judge_errno(call, errno, mechanism, context),
        }
    }
}

fn could_not_try(call: &str, errno: Errno, context: &Context) -> Seen {
    let error = described(errno);
    let seen = Seen::unknown(
        format!("could not be tried: {call}: {error}"),
        format!("{call} failed: {error}"),
    );
    match remedy_of_shortage(errno, context) {
        Some(remedy) => seen.remedy(remedy),
        None => seen,
    }
}

fn judge_errno(call: &str, errno: Errno, mechanism: &Mechanism, context: &Context) -> Seen {
    let error = described(errno);
    let evidence = format!("{call} failed: {error}");
    let too_old = context.is_before(mechanism.since);
    let upgrade = format!("a kernel from {} on", mechanism.since_text);
    match errno {
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOPROTOOPT | Errno::NOTTY
            if too_old =>
        {
            let reason = format!("Linux {} has it, this is older", mechanism.since_text);
            Seen::missing(Cause::KernelLacks, reason, evidence).remedy(upgrade)
        }
        Errno::NOSYS if context.is_filtered() => Seen::missing(
            Cause::NotPermitted,
            "hidden by a seccomp filter, or not built into the kernel",
            evidence,
        )
        .remedy(format!(
            "allow {} in the container's seccomp profile",
            bare(call)
        )),
        Errno::NOSYS => Seen::missing(
            Cause::KernelLacks,
            "the kernel was built without it",
            evidence,
        )
        .remedy("a kernel that is built with it"),
        Errno::PERM | Errno::ACCESS => {
            let (reason, remedy) = if context.is_filtered() {
                let remedy = format!(
                    "allow {} in the container's seccomp profile, or grant the privilege",
                    bare(call)
                );
                ("not permitted (a seccomp filter is active)", remedy)
            } else {
                (
                    "not permitted",
                    "ask as root, or grant the privilege".into(),
                )
            };
            Seen::missing(Cause::NotPermitted, reason, evidence).remedy(remedy)
        }
        Errno::OPNOTSUPP | Errno::INVAL | Errno::NOPROTOOPT | Errno::NOTTY | Errno::NODEV => {
            let (cause, who) = match mechanism.group {
                Group::Files => (Cause::FileSystemLacks, "the file system"),
                _ => (Cause::KernelLacks, "the kernel"),
            };
            let by = name(errno).unwrap_or("error");
            Seen::missing(cause, format!("{who} does not support it ({by})"), evidence)
        }
        _ => could_not_try(call, errno, context),
    }
}

/// The system call without its flags.
fn bare(call: &str) -> &str {
    call.split([' ', '(']).next().unwrap_or(call)
}

/// What helps when something has run out.
fn remedy_of_shortage(errno: Errno, context: &Context) -> Option<String> {
    let remedy = match errno {
        Errno::MFILE => "raise the limit on open files (ulimit -n)",
        Errno::NFILE => "raise fs.file-max",
        Errno::NOSPC => "free some space there, or name another path",
        Errno::DQUOT => "free some of the quota, or name another path",
        Errno::ROFS => "name a path that can be written to",
        Errno::NOMEM | Errno::NOBUFS => {
            return remedy_of_locked_memory(context).or_else(|| Some("free some memory".into()));
        }
        Errno::NETUNREACH | Errno::ADDRNOTAVAIL => "switch loopback on: ip link set lo up",
        _ => return None,
    };
    Some(remedy.into())
}

/// `No such file or directory (ENOENT)`.
pub(super) fn described(errno: Errno) -> String {
    let text = io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    // The standard library adds the number, which says less than the name.
    let text = text.split(" (os error").next().unwrap_or(&text);
    match name(errno) {
        Some(name) => format!("{text} ({name})"),
        None => format!("{text} (error {})", errno.raw_os_error()),
    }
}

fn name(errno: Errno) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|&&(known, _)| known == errno)
        .map(|&(_, name)| name)
}

/// The ones that the probes meet.
const NAMES: [(Errno, &str); 42] = [
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::BADF, "EBADF"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::FAULT, "EFAULT"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::XDEV, "EXDEV"),
    (Errno::NODEV, "ENODEV"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NFILE, "ENFILE"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NOTTY, "ENOTTY"),
    (Errno::TXTBSY, "ETXTBSY"),
    (Errno::FBIG, "EFBIG"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::ROFS, "EROFS"),
    (Errno::PIPE, "EPIPE"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::LOOP, "ELOOP"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::STALE, "ESTALE"),
    (Errno::NOTSUP, "EOPNOTSUPP"),
    (Errno::NOPROTOOPT, "ENOPROTOOPT"),
    (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::MSGSIZE, "EMSGSIZE"),
    (Errno::NOLCK, "ENOLCK"),
];
