//! How many times the CPU copies a byte in a call, by the contract of the call and the kind of what
//! it moves bytes between. This is [`Method::ByCall`](crate::Method::ByCall): what the kernel
//! really did was not seen.
//!
//! Counted are copies of the bytes themselves in main memory, by the CPU, within the system call.
//! Checksums, encryption in the program, and the copies of whoever is at the other end are not.

use super::object::Kind;

/// Copies of a byte that a read-like call takes from `source` into the program's memory.
pub(crate) const fn input(source: Kind) -> u64 {
    match source {
        // The device writes straight into the program's memory.
        Kind::DirectFile => 0,
        // Nothing to read; zeros are filled in.
        Kind::Null | Kind::Zero => 0,
        _ => 1,
    }
}

/// Copies of a byte that a write-like call takes from the program's memory to `sink`.
pub(crate) const fn output(sink: Kind) -> u64 {
    match sink {
        Kind::DirectFile | Kind::Null | Kind::Zero => 0,
        _ => 1,
    }
}

/// Copies of a byte on its way from `source` into pages that a pipe (the caller's, or the one that
/// `sendfile` keeps for itself) can hold.
pub(crate) const fn into_pages(source: Kind) -> u64 {
    match source {
        // The pages of the page cache, of the socket's queue, or of the other pipe themselves.
        Kind::File
        | Kind::Opened
        | Kind::Memfd
        | Kind::BlockDevice
        | Kind::Tcp
        | Kind::Unix
        | Kind::Pipe => 0,
        // The device fills fresh pages.
        Kind::DirectFile | Kind::Zero | Kind::Null => 0,
        // copy_splice_read(): fresh pages are read into.
        _ => 1,
    }
}

/// Copies of a byte on its way from pages in a pipe to `sink`.
pub(crate) const fn out_of_pages(sink: Kind) -> u64 {
    match sink {
        // MSG_SPLICE_PAGES: the socket's queue refers to the pages.
        Kind::Tcp | Kind::Udp | Kind::Unix | Kind::Pipe | Kind::Null | Kind::Zero => 0,
        Kind::DirectFile => 0,
        // Encrypted into fresh pages.
        Kind::TlsTcp => 1,
        // Copied into the page cache, or into whatever the driver keeps.
        _ => 1,
    }
}
