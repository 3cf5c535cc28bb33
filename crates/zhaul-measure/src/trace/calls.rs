//! The system calls that are followed: those that move data, and those that change what a
//! descriptor or an address refers to.

use std::sync::OnceLock;

/// Where a read-like or write-like call finds its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// `(fd, buffer, length)`.
    Buffer,
    /// `(fd, iovec array, count)`.
    Vectors,
    /// `(fd, msghdr)`.
    Message,
}

/// What a call does to what is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Puts bytes into the program's memory. The second is the index of the argument that holds
    /// `MSG_` flags, if any does.
    Input(Span, Option<usize>),
    /// Takes bytes out of the program's memory.
    Output(Span, Option<usize>),
    /// Moves messages whose lengths are not in its result.
    Messages,
    /// Moves bytes without passing through the program's memory.
    Sendfile,
    Splice,
    Tee,
    Vmsplice,
    CopyFileRange,
    /// Copies between the memories of two processes.
    OtherMemory,
    /// May share the blocks of two files.
    Ioctl,
    /// Makes a descriptor for a path. The index of the argument that holds the flags, if one does.
    Open(Option<usize>),
    Memfd,
    Socket,
    /// Makes a connection. The index of the argument that holds the flags, if one does.
    Accept(Option<usize>),
    Socketpair,
    Pipe,
    Dup,
    Fcntl,
    Close,
    CloseRange,
    Mmap,
    Munmap,
    Mremap,
    /// Moves the end of the heap.
    Brk,
    /// May let the kernel take pages away.
    Madvise,
    /// Puts bytes of no account into memory, at the address in the argument of this index, and as
    /// many as its result says.
    Fill(usize),
    Setsockopt,
    /// Moves data where this call does not show it: io_uring, libaio.
    Elsewhere,
}

impl Role {
    /// Whether the call is listed among those that move data.
    pub(crate) const fn moves_data(self) -> bool {
        matches!(
            self,
            Self::Input(..)
                | Self::Output(..)
                | Self::Messages
                | Self::Sendfile
                | Self::Splice
                | Self::Tee
                | Self::Vmsplice
                | Self::CopyFileRange
                | Self::OtherMemory
                | Self::Elsewhere
        )
    }

    /// Whether part of its arguments lies in the program's memory and is needed.
    pub(crate) const fn has_arguments_in_memory(self) -> bool {
        matches!(
            self,
            Self::Input(Span::Vectors | Span::Message, _)
                | Self::Output(Span::Vectors | Span::Message, _)
                | Self::Vmsplice
                | Self::Pipe
                | Self::Socketpair
        )
    }
}

/// A call that is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) role: Role,
}

/// The call with this number, if it is followed.
pub(crate) fn followed(number: i64) -> Option<&'static Followed> {
    static BY_NUMBER: OnceLock<Vec<Option<&'static Followed>>> = OnceLock::new();
    let by_number = BY_NUMBER.get_or_init(|| {
        let mut by_number = vec![None; 512];
        for call in CALLS {
            if let Some(slot) = usize::try_from(call.number)
                .ok()
                .and_then(|n| by_number.get_mut(n))
            {
                *slot = Some(call);
            }
        }
        by_number
    });
    *by_number.get(usize::try_from(number).ok()?)?
}

/// All calls that are followed.
pub(crate) fn all() -> &'static [Followed] {
    CALLS
}

const fn call(number: libc::c_long, name: &'static str, role: Role) -> Followed {
    Followed { number, name, role }
}

const CALLS: &[Followed] = &[
    call(libc::SYS_read, "read", Role::Input(Span::Buffer, None)),
    call(
        libc::SYS_pread64,
        "pread64",
        Role::Input(Span::Buffer, None),
    ),
    call(
        libc::SYS_recvfrom,
        "recvfrom",
        Role::Input(Span::Buffer, Some(3)),
    ),
    call(libc::SYS_readv, "readv", Role::Input(Span::Vectors, None)),
    call(libc::SYS_preadv, "preadv", Role::Input(Span::Vectors, None)),
    call(
        libc::SYS_preadv2,
        "preadv2",
        Role::Input(Span::Vectors, None),
    ),
    call(
        libc::SYS_recvmsg,
        "recvmsg",
        Role::Input(Span::Message, Some(2)),
    ),
    call(libc::SYS_write, "write", Role::Output(Span::Buffer, None)),
    call(
        libc::SYS_pwrite64,
        "pwrite64",
        Role::Output(Span::Buffer, None),
    ),
    call(
        libc::SYS_sendto,
        "sendto",
        Role::Output(Span::Buffer, Some(3)),
    ),
    call(
        libc::SYS_writev,
        "writev",
        Role::Output(Span::Vectors, None),
    ),
    call(
        libc::SYS_pwritev,
        "pwritev",
        Role::Output(Span::Vectors, None),
    ),
    call(
        libc::SYS_pwritev2,
        "pwritev2",
        Role::Output(Span::Vectors, None),
    ),
    call(
        libc::SYS_sendmsg,
        "sendmsg",
        Role::Output(Span::Message, Some(2)),
    ),
    call(libc::SYS_recvmmsg, "recvmmsg", Role::Messages),
    call(libc::SYS_sendmmsg, "sendmmsg", Role::Messages),
    call(libc::SYS_sendfile, "sendfile", Role::Sendfile),
    call(libc::SYS_splice, "splice", Role::Splice),
    call(libc::SYS_tee, "tee", Role::Tee),
    call(libc::SYS_vmsplice, "vmsplice", Role::Vmsplice),
    call(
        libc::SYS_copy_file_range,
        "copy_file_range",
        Role::CopyFileRange,
    ),
    call(
        libc::SYS_process_vm_readv,
        "process_vm_readv",
        Role::OtherMemory,
    ),
    call(
        libc::SYS_process_vm_writev,
        "process_vm_writev",
        Role::OtherMemory,
    ),
    call(libc::SYS_ioctl, "ioctl", Role::Ioctl),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_open, "open", Role::Open(Some(1))),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_creat, "creat", Role::Open(None)),
    call(libc::SYS_openat, "openat", Role::Open(Some(2))),
    call(libc::SYS_openat2, "openat2", Role::Open(None)),
    call(libc::SYS_memfd_create, "memfd_create", Role::Memfd),
    call(libc::SYS_socket, "socket", Role::Socket),
    call(libc::SYS_accept, "accept", Role::Accept(None)),
    call(libc::SYS_accept4, "accept4", Role::Accept(Some(3))),
    call(libc::SYS_socketpair, "socketpair", Role::Socketpair),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_pipe, "pipe", Role::Pipe),
    call(libc::SYS_pipe2, "pipe2", Role::Pipe),
    call(libc::SYS_dup, "dup", Role::Dup),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_dup2, "dup2", Role::Dup),
    call(libc::SYS_dup3, "dup3", Role::Dup),
    call(libc::SYS_fcntl, "fcntl", Role::Fcntl),
    call(libc::SYS_close, "close", Role::Close),
    call(libc::SYS_close_range, "close_range", Role::CloseRange),
    call(libc::SYS_mmap, "mmap", Role::Mmap),
    call(libc::SYS_munmap, "munmap", Role::Munmap),
    call(libc::SYS_mremap, "mremap", Role::Mremap),
    call(libc::SYS_brk, "brk", Role::Brk),
    call(libc::SYS_madvise, "madvise", Role::Madvise),
    call(libc::SYS_getrandom, "getrandom", Role::Fill(0)),
    call(libc::SYS_getcwd, "getcwd", Role::Fill(0)),
    call(libc::SYS_getdents64, "getdents64", Role::Fill(1)),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_readlink, "readlink", Role::Fill(1)),
    call(libc::SYS_readlinkat, "readlinkat", Role::Fill(2)),
    call(libc::SYS_setsockopt, "setsockopt", Role::Setsockopt),
    call(libc::SYS_io_uring_enter, "io_uring_enter", Role::Elsewhere),
    call(libc::SYS_io_submit, "io_submit", Role::Elsewhere),
];
