//! The two ends of a checked transfer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::trouble::{During, Trouble, errno_of};

/// How long a transfer may stand still.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

const NAP: Duration = Duration::from_micros(50);

/// A connected pair of non-blocking sockets.
pub(super) struct Ends {
    pub(super) near: OwnedFd,
    pub(super) far: OwnedFd,
    /// What kind of socket it is.
    pub(super) kind: &'static str,
}

impl Ends {
    /// TCP on loopback.
    pub(super) fn tcp() -> Result<Self, Trouble> {
        Self::tcp_with(|_| Ok(()))
    }

    /// TCP on loopback; `prepare` gets the listening socket before anybody connects.
    pub(super) fn tcp_with(
        prepare: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<Self, Trouble> {
        let first = Self::tcp_on(Ipv4Addr::LOCALHOST.into(), &prepare);
        // A host may have one of the two only.
        first.or_else(|error| Self::tcp_on(Ipv6Addr::LOCALHOST.into(), &prepare).map_err(|_| error))
    }

    fn tcp_on(
        address: IpAddr,
        prepare: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<Self, Trouble> {
        let listener = TcpListener::bind((address, 0)).preparing("bind to loopback")?;
        prepare(listener.as_fd()).preparing("setsockopt")?;
        let own = listener.local_addr().preparing("getsockname")?;
        let near = TcpStream::connect_timeout(&own, PATIENCE).preparing("connect on loopback")?;
        listener.set_nonblocking(true).preparing("fcntl")?;
        let local = near.local_addr().preparing("getsockname")?;
        let deadline = Instant::now() + PATIENCE;
        let far = loop {
            match listener.accept() {
                // Anybody may connect to a port of loopback.
                Ok((far, peer)) if peer == local => break far,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).preparing("accept on loopback"),
            }
            if !wait(&[(listener.as_fd(), PollFlags::IN)], deadline) {
                return Err(Trouble::Needs("accept on loopback", Errno::TIMEDOUT));
            }
        };
        near.set_nonblocking(true).preparing("fcntl")?;
        far.set_nonblocking(true).preparing("fcntl")?;
        near.set_nodelay(true).preparing("setsockopt")?;
        Ok(Self {
            near: near.into(),
            far: far.into(),
            kind: "TCP on loopback",
        })
    }

    /// TCP on loopback, or a pair of UNIX sockets where there is no network.
    pub(super) fn stream() -> Result<Self, Trouble> {
        Self::tcp().or_else(|_| {
            let (near, far) = UnixStream::pair().preparing("socketpair")?;
            near.set_nonblocking(true).preparing("fcntl")?;
            far.set_nonblocking(true).preparing("fcntl")?;
            Ok(Self {
                near: near.into(),
                far: far.into(),
                kind: "a UNIX socket",
            })
        })
    }

    /// Lets `step` put `content` into the near end, from the position that it is given and as much
    /// as it likes at a time, and checks what comes out of the far end.
    pub(super) fn carry(
        &self,
        content: &[u8],
        call: &'static str,
        mut step: impl FnMut(usize) -> io::Result<usize>,
    ) -> Result<(), Trouble> {
        let mut sent = 0;
        let mut checker = Checker::of(content, call);
        let mut deadline = Instant::now() + PATIENCE;
        while !checker.is_done() {
            let mut moved = false;
            if sent < content.len() {
                match step(sent) {
                    Ok(0) => return Err(Trouble::Call(call, Errno::PIPE)),
                    Ok(n) => {
                        sent += n;
                        moved = true;
                    }
                    Err(error) if is_soon(&error) => {}
                    Err(error) => return Err(Trouble::Call(call, errno_of(&error))),
                }
            }
            moved |= checker.take_from(self.far.as_fd())?;
            if moved {
                deadline = Instant::now() + PATIENCE;
                continue;
            }
            let mut interests = vec![(self.far.as_fd(), PollFlags::IN)];
            if sent < content.len() {
                interests.push((self.near.as_fd(), PollFlags::OUT));
            }
            if !wait(&interests, deadline) {
                return Err(Trouble::Stuck(call));
            }
            // The sink may be ready while what is between the two is not.
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    /// Puts `content` into the near end in the ordinary way, until the far end has it all.
    pub(super) fn fill(&self, content: &[u8]) -> Result<(), Trouble> {
        let mut sent = 0;
        let deadline = Instant::now() + PATIENCE;
        while sent < content.len() {
            match rustix::io::write(&self.near, &content[sent..]) {
                Ok(n) => sent += n,
                Err(Errno::AGAIN) if wait(&[(self.near.as_fd(), PollFlags::OUT)], deadline) => {}
                Err(errno) => return Err(Trouble::Needs("write to a socket", errno)),
            }
        }
        Ok(())
    }
}

/// Compares what arrives with what should.
pub(super) struct Checker<'a> {
    expected: &'a [u8],
    call: &'static str,
}

impl<'a> Checker<'a> {
    pub(super) fn of(expected: &'a [u8], call: &'static str) -> Self {
        Self { expected, call }
    }

    pub(super) fn is_done(&self) -> bool {
        self.expected.is_empty()
    }

    /// Compares the next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.expected.strip_prefix(bytes) {
            Some(rest) => {
                self.expected = rest;
                Ok(())
            }
            None => Err(Trouble::Differs(self.call)),
        }
    }

    /// Reads and compares what is there; false if there is nothing.
    pub(super) fn take_from(&mut self, fd: BorrowedFd<'_>) -> Result<bool, Trouble> {
        let mut buffer = [0; 4096];
        match rustix::io::read(fd, &mut buffer) {
            // The end came early: something was lost.
            Ok(0) => Err(Trouble::Differs(self.call)),
            Ok(n) => self.take(&buffer[..n]).map(|()| true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(Trouble::Needs("read from a socket", errno)),
        }
    }
}

/// Waits until one of the descriptors is ready; false when the time is over.
pub(super) fn wait(interests: &[(BorrowedFd<'_>, PollFlags)], deadline: Instant) -> bool {
    let mut set: Vec<_> = interests
        .iter()
        .map(|(fd, flags)| PollFd::new(fd, *flags))
        .collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let Ok(timeout) = Timespec::try_from(left) else {
            return false;
        };
        match poll(&mut set, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// True for errors after which the same call may succeed.
pub(super) fn is_soon(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::pattern;

    #[test]
    fn a_wrong_byte_is_noticed() {
        let ends = Ends::stream().map_err(|_| "no sockets").unwrap();
        let content = pattern::bytes(8000);
        let outcome = ends.carry(content, "a liar", |at| {
            let mut wrong = content[at..].to_vec();
            wrong[0] ^= 1;
            Ok(rustix::io::write(&ends.near, &wrong)?)
        });
        assert!(matches!(outcome, Err(Trouble::Differs("a liar"))));
    }

    #[test]
    fn a_transfer_that_stands_still_is_given_up() {
        let ends = Ends::stream().map_err(|_| "no sockets").unwrap();
        let outcome = ends.carry(&[1], "lazy", |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(
            matches!(outcome, Err(Trouble::Stuck("lazy"))),
            "{outcome:?}"
        );
    }

    #[test]
    fn lost_bytes_are_noticed() {
        let ends = Ends::stream().map_err(|_| "no sockets").unwrap();
        let outcome = ends.carry(&[1, 2, 3], "lossy", |at| {
            if at > 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(rustix::io::write(&ends.near, &[1])? + 2)
        });
        assert!(
            matches!(outcome, Err(Trouble::Stuck("lossy"))),
            "{outcome:?}"
        );
    }
}
