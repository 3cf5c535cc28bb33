//! The number a failed system call left behind.
//!
//! A newtype of our own, because this crate depends on nothing and its tests script errors that
//! no library enumerates. The values are those of Linux on x86-64 and aarch64 (asm-generic).

use std::fmt;

/// A Linux error number, positive as in `errno(3)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// The symbolic name, for the numbers that transfers meet.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            const fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    EINTR = 4, "interrupted system call";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    EBADF = 9, "bad file descriptor";
    EAGAIN = 11, "resource temporarily unavailable";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "device or resource busy";
    EXDEV = 18, "invalid cross-device link";
    ENODEV = 19, "no such device";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in system";
    EMFILE = 24, "too many open files";
    ETXTBSY = 26, "text file busy";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left on device";
    ESPIPE = 29, "illegal seek";
    EROFS = 30, "read-only file system";
    EPIPE = 32, "broken pipe";
    ENOSYS = 38, "function not implemented";
    EOVERFLOW = 75, "value too large for defined data type";
    EMSGSIZE = 90, "message too long";
    EOPNOTSUPP = 95, "operation not supported";
    ENETDOWN = 100, "network is down";
    ENETUNREACH = 101, "network is unreachable";
    ECONNABORTED = 103, "software caused connection abort";
    ECONNRESET = 104, "connection reset by peer";
    ENOBUFS = 105, "no buffer space available";
    ENOTCONN = 107, "transport endpoint is not connected";
    ETIMEDOUT = 110, "connection timed out";
    EHOSTUNREACH = 113, "no route to host";
    EDQUOT = 122, "disk quota exceeded";
    ECANCELED = 125, "operation canceled";
}

impl Errno {
    /// Wraps a positive error number.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The positive error number.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// What it says of the call that it came from. Every machine decides by this and by nothing else.
    pub const fn class(self) -> ErrnoClass {
        match self {
            Self::EAGAIN => ErrnoClass::WouldBlock,
            Self::EINVAL
            | Self::ENOSYS
            | Self::EOPNOTSUPP
            | Self::EXDEV
            | Self::EBADF
            | Self::EPERM
            | Self::EACCES
            | Self::ESPIPE
            | Self::ETXTBSY
            | Self::ENODEV
            | Self::EOVERFLOW => ErrnoClass::Unsupported,
            Self::ENOMEM | Self::ENOBUFS | Self::EMFILE | Self::ENFILE => ErrnoClass::Shortage,
            Self::ECONNRESET | Self::EPIPE | Self::ECONNABORTED | Self::ENOTCONN => {
                ErrnoClass::Reset
            }
            Self::ETIMEDOUT | Self::EHOSTUNREACH | Self::ENETUNREACH | Self::ENETDOWN => {
                ErrnoClass::Unreachable
            }
            Self::ENOSPC | Self::EFBIG | Self::EDQUOT | Self::EROFS => ErrnoClass::NoRoom,
            _ => ErrnoClass::Failure,
        }
    }

    /// True for the answer that is a state, not an error: the call would have had to wait.
    pub const fn is_would_block(self) -> bool {
        matches!(self.class(), ErrnoClass::WouldBlock)
    }

    /// True if the kernel does not do this here, or not now, and another route may. If it is the
    /// descriptor's fault instead, read and write will say the same.
    pub(crate) const fn is_refusal(self) -> bool {
        matches!(self.class(), ErrnoClass::Unsupported | ErrnoClass::Shortage)
    }

    /// True if there is no room for more in a file.
    pub(crate) const fn is_about_room(self) -> bool {
        matches!(self.class(), ErrnoClass::NoRoom)
    }

    /// True if the other side of a connection went away.
    pub(crate) const fn is_disconnect(self) -> bool {
        matches!(self.class(), ErrnoClass::Reset | ErrnoClass::Unreachable)
    }
}

/// What an error number says of a call that moves bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrnoClass {
    /// It would have had to wait.
    WouldBlock,
    /// The kernel does not do this between these two ends: another route may.
    Unsupported,
    /// The kernel is short of memory or descriptors: another route may do with less, and later the
    /// same may.
    Shortage,
    /// The peer reset the connection, or closed it and was sent more. EPIPE is what the kernel says
    /// of a connection whose reset was reported before, of one that was reset after it had ended its
    /// own stream, and of a UNIX socket that was closed.
    Reset,
    /// The peer, or the network in between, no longer answers.
    Unreachable,
    /// A file takes no more.
    NoRoom,
    /// Anything else, of which no route can make good: EIO, EFAULT, EISDIR.
    Failure,
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text(), self.name()) {
            (Some(text), Some(name)) => write!(f, "{text} ({name})"),
            _ => write!(f, "errno {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_names_and_unknown_ones_keep_their_number() {
        assert_eq!(Errno::from_raw(32), Errno::EPIPE);
        assert_eq!(Errno::EPIPE.to_string(), "broken pipe (EPIPE)");
        assert_eq!(Errno::from_raw(4095).to_string(), "errno 4095");
        assert!(Errno::EAGAIN.is_would_block());
        assert!(!Errno::EINVAL.is_would_block());
    }

    #[test]
    fn each_class_means_one_thing() {
        for number in 0..200 {
            let errno = Errno::from_raw(number);
            let answers = [
                errno.is_would_block(),
                errno.is_refusal(),
                errno.is_about_room(),
                errno.is_disconnect(),
            ];
            let is_failure = errno.class() == ErrnoClass::Failure;
            let meanings = answers.iter().filter(|&&answer| answer).count();
            assert_eq!(meanings, usize::from(!is_failure), "{errno:?}");
        }
        assert_eq!(Errno::EIO.class(), ErrnoClass::Failure);
        assert_eq!(Errno::from_raw(4095).class(), ErrnoClass::Failure);
    }
}
