//! Whether two descriptors have one open file description, by `fcntl(2)` F_DUPFD_QUERY (since Linux
//! 6.10) or `kcmp(2)` (since 3.5, if built with CONFIG_KCMP).
//!
//! [kcmp(2)](https://man7.org/linux/man-pages/man2/kcmp.2.html)

use std::io;
use std::os::fd::RawFd;

use crate::check;

/// Whether what these numbers stand for in this process is one open file description.
///
/// # Errors
/// EBADF for a number that stands for nothing; ENOSYS or EPERM where the kernel does not tell.
pub fn is_same_description(one: RawFd, other: RawFd) -> io::Result<bool> {
    // SAFETY: integers in, an integer out; neither descriptor is touched.
    if let Ok(is_same) = check(unsafe { libc::fcntl(one, F_DUPFD_QUERY, other) }) {
        return Ok(is_same == 1);
    }
    let process = libc::c_long::from(std::process::id());
    let (one, other) = (libc::c_long::from(one), libc::c_long::from(other));
    // SAFETY: as above.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, process, process, KCMP_FILE, one, other) };
    match order {
        -1 => Err(io::Error::last_os_error()),
        order => Ok(order == 0),
    }
}

/// Of `linux/fcntl.h`.
const F_DUPFD_QUERY: libc::c_int = 1024 + 3;
/// Of `linux/kcmp.h`.
const KCMP_FILE: libc::c_long = 0;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn duplicates_have_one_description_and_files_opened_twice_have_two() {
        let (one, other) = (File::open("/").unwrap(), File::open("/").unwrap());
        let same = |a: &File, b: &File| is_same_description(a.as_raw_fd(), b.as_raw_fd());
        match same(&one, &one.try_clone().unwrap()) {
            Err(error) if error.raw_os_error() != Some(libc::EBADF) => {
                println!("SKIP descriptions are not compared: {error}");
            }
            is_same => assert!(is_same.unwrap() && !same(&one, &other).unwrap()),
        }
    }
}
