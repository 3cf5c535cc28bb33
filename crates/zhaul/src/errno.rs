//! From the errors of `std` and rustix to the core's.

use std::io;

use zhaul_core::Errno;

/// The error number in an [`io::Error`]; EIO for one that carries none.
pub fn errno_of(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number),
        None if error.kind() == io::ErrorKind::WouldBlock => Errno::EAGAIN,
        None if error.kind() == io::ErrorKind::InvalidInput => Errno::EINVAL,
        None => Errno::EIO,
    }
}

pub(crate) fn of_rustix(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_survives_and_a_kind_without_one_gets_its_own() {
        assert_eq!(errno_of(&io::Error::from_raw_os_error(32)), Errno::EPIPE);
        assert_eq!(errno_of(&io::ErrorKind::WouldBlock.into()), Errno::EAGAIN);
        assert_eq!(of_rustix(rustix::io::Errno::INVAL), Errno::EINVAL);
    }
}
