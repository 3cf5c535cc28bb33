//! `io_uring_setup(2)` and its kin, one operation at a time: enough to find out what works.
//!
//! Buffers are moved into an operation and come back with its result. If it is not done in time the
//! buffer stays with the kernel for ever, since nobody can say until when it is used.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use ::io_uring::types::{Fd, SubmitArgs, Timespec};
use ::io_uring::{IoUring, Probe, cqueue, opcode, squeue};

/// A ring of eight entries.
pub struct Ring {
    ring: IoUring,
    next_id: u64,
    /// An operation may wait in the queue that was never taken from it: with the next one it would be
    /// made on whatever its descriptor's number means by then.
    failed: bool,
}

/// What became of a zero-copy send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroCopySend {
    /// Bytes sent.
    pub sent: usize,
    /// Whether the kernel copied them after all; `None` if it does not tell (before Linux 6.2).
    pub copied: Option<bool>,
}

/// An operation by the name of its constant without `IORING_OP_`, and its number.
pub const OPERATIONS: [(&str, u8); 14] = [
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("SEND", opcode::Send::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("ACCEPT", opcode::Accept::CODE),
    ("CONNECT", opcode::Connect::CODE),
    ("SPLICE", opcode::Splice::CODE),
    ("TEE", opcode::Tee::CODE),
    ("SEND_ZC", opcode::SendZc::CODE),
    ("SENDMSG_ZC", opcode::SendMsgZc::CODE),
    ("RECV_ZC", opcode::RecvZc::CODE),
];

impl Ring {
    /// Makes a ring.
    ///
    /// # Errors
    /// EPERM where `kernel.io_uring_disabled` or a security module forbids it, ENOSYS without
    /// CONFIG_IO_URING or under a filter that hides it, ENOMEM beyond RLIMIT_MEMLOCK (before
    /// Linux 5.12).
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::new(8)?;
        Ok(Self {
            ring,
            next_id: 0,
            failed: false,
        })
    }

    /// Names of the [`OPERATIONS`] that this kernel has (IORING_REGISTER_PROBE).
    ///
    /// # Errors
    /// EINVAL before Linux 5.6.
    pub fn operations(&self) -> io::Result<Vec<&'static str>> {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe)?;
        let there = |&&(_, code): &&(&str, u8)| probe.is_supported(code);
        Ok(OPERATIONS
            .iter()
            .filter(there)
            .map(|&(name, _)| name)
            .collect())
    }

    /// Reads from `offset` of a file into the buffer, and gives it back with the number of bytes.
    ///
    /// # Errors
    /// The operation's own error; ETIMEDOUT if it is not done in time.
    pub fn read(
        &mut self,
        file: BorrowedFd<'_>,
        mut buffer: Vec<u8>,
        offset: u64,
        patience: Duration,
    ) -> io::Result<(usize, Vec<u8>)> {
        let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        let operation = opcode::Read::new(Fd(file.as_raw_fd()), buffer.as_mut_ptr(), len)
            .offset(offset)
            .build();
        // SAFETY: the buffer is ours, not moved while the operation lasts, and leaked below unless
        // the operation is known to be over.
        let submitted = unsafe { self.submit(operation) };
        let done = submitted.and_then(|id| self.wait(id, patience));
        match done {
            Ok(done) => Ok((outcome(&done)?, buffer)),
            Err(error) => {
                std::mem::forget(buffer);
                Err(error)
            }
        }
    }

    /// Sends from the pages of `bytes` themselves (IORING_OP_SEND_ZC) and waits until the kernel is
    /// done with them.
    ///
    /// # Errors
    /// As [`read`](Self::read); EINVAL before Linux 6.0.
    pub fn send_zero_copy(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &'static [u8],
        patience: Duration,
    ) -> io::Result<ZeroCopySend> {
        match self.send_zero_copy_with(socket, bytes, SEND_ZC_REPORT_USAGE, patience) {
            // Linux 6.0 and 6.1 do not know the flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.send_zero_copy_with(socket, bytes, 0, patience)
            }
            done => done,
        }
    }

    fn send_zero_copy_with(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &'static [u8],
        flags: u16,
        patience: Duration,
    ) -> io::Result<ZeroCopySend> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let operation = opcode::SendZc::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .zc_flags(flags)
            .build();
        // SAFETY: the bytes live for ever and are never written.
        let id = unsafe { self.submit(operation) }?;
        let sent = self.wait(id, patience)?;
        // A failed one is followed by a notification, too, if it says so.
        let notified = if cqueue::more(sent.flags()) {
            Some(self.wait(id, patience)?)
        } else {
            None
        };
        let sent = outcome(&sent)?;
        let told = notified.filter(|_| flags == SEND_ZC_REPORT_USAGE);
        Ok(ZeroCopySend {
            sent,
            copied: told.map(|entry| entry.result().cast_unsigned() & NOTIF_USAGE_ZC_COPIED != 0),
        })
    }

    /// # Safety
    /// What the operation points at stays valid until its last completion was taken, or for ever.
    unsafe fn submit(&mut self, operation: squeue::Entry) -> io::Result<u64> {
        if self.failed {
            return Err(io::Error::other(
                "an earlier operation could not be submitted",
            ));
        }
        self.next_id += 1;
        let operation = operation.user_data(self.next_id);
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.ring.submission().push(&operation) };
        pushed.map_err(io::Error::other)?;
        self.failed = true;
        let submitted = self.ring.submit()?;
        self.failed = submitted != 1;
        Ok(self.next_id)
    }

    /// The next completion of this operation; those of others, which were given up, are dropped.
    fn wait(&mut self, id: u64, patience: Duration) -> io::Result<cqueue::Entry> {
        let deadline = Instant::now() + patience;
        loop {
            let found = self.ring.completion().find(|entry| entry.user_data() == id);
            if let Some(entry) = found {
                return Ok(entry);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            let timeout = Timespec::from(left);
            let arguments = SubmitArgs::new().timespec(&timeout);
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Ok(_) => {}
                Err(error) if is_impatience(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("fd", &self.ring.as_raw_fd())
            .finish()
    }
}

fn outcome(entry: &cqueue::Entry) -> io::Result<usize> {
    let result = entry.result();
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn is_impatience(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR))
}

// linux/io_uring.h; the crate does not export them.
const SEND_ZC_REPORT_USAGE: u16 = 8;
const NOTIF_USAGE_ZC_COPIED: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    static BYTES: [u8; 8000] = [4; 8000];

    fn ring(test: &str) -> Option<Ring> {
        Ring::new().map_err(|e| zhaul_untested::skip(test, e)).ok()
    }

    #[test]
    fn a_file_is_read_from_its_offset() {
        let Some(mut ring) = ring("a_file_is_read_from_its_offset") else {
            return;
        };
        let file = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&file, b"0123456789", 0).unwrap();
        let (read, buffer) = ring.read(file.as_fd(), vec![0; 20], 4, PATIENCE).unwrap();
        assert_eq!(&buffer[..read], b"456789");
        assert!(ring.operations().unwrap().contains(&"READ"));
    }

    #[test]
    fn a_read_that_never_ends_is_given_up_and_the_next_one_works() {
        let Some(mut ring) = ring("a_read_that_never_ends_is_given_up_and_the_next_one_works")
        else {
            return;
        };
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let short = Duration::from_millis(10);
        let error = ring.read(reader.as_fd(), vec![0; 5], 0, short).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        rustix::io::write(&writer, b"first").unwrap();
        rustix::io::write(&writer, b"second").unwrap();
        let (read, buffer) = ring.read(reader.as_fd(), vec![0; 6], 0, PATIENCE).unwrap();
        assert!(b"firstsecond".ends_with(&buffer[..read]), "{buffer:?}");
    }

    #[test]
    fn a_zero_copy_send_is_notified() {
        let Some(mut ring) = ring("a_zero_copy_send_is_notified") else {
            return;
        };
        if !ring.operations().unwrap().contains(&"SEND_ZC") {
            zhaul_untested::skip("a_zero_copy_send_is_notified", "needs Linux 6.0");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let done = ring.send_zero_copy(near.as_fd(), &BYTES, PATIENCE).unwrap();
        let mut received = vec![0; done.sent];
        far.read_exact(&mut received).unwrap();
        assert!(received == BYTES[..done.sent]);
        assert_ne!(done.copied, Some(false), "loopback copies");
    }
}
